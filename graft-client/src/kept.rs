//! What an open request keeps of its payload, to send it again.

use bytes::Bytes;

/// A payload of at most so many bytes is kept as a copy: it costs less than to count who shares it, and the link is
/// then the only one that has to let it go.
const FEW: usize = 64;

/// A payload, or none as long as it is empty.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The payload, where it is not few bytes.
    shared: Option<Bytes>,
    /// How many of `few` are the payload.
    length: u8,
    few: [u8; FEW],
}

impl Default for Kept {
    fn default() -> Self {
        Self { shared: None, length: 0, few: [0; FEW] }
    }
}

impl Kept {
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.shared {
            Some(shared) => shared,
            None => &self.few[..usize::from(self.length)],
        }
    }

    /// Keeps `payload` and nothing else. Gives back what is to be dropped where no lock is held.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "few bytes are fewer than 256")]
    pub(crate) fn keep(&mut self, payload: &Bytes) -> Option<Bytes> {
        let length = payload.len();
        if length <= FEW {
            self.few[..length].copy_from_slice(payload);
            self.length = length as u8;
            self.shared.take()
        } else {
            self.length = 0;
            self.shared.replace(payload.clone())
        }
    }

    /// The payload once more.
    pub(crate) fn share(&self) -> Bytes {
        match &self.shared {
            Some(shared) => shared.clone(),
            None if self.length == 0 => Bytes::new(),
            None => Bytes::from_owner(Aligned(self.few)).slice(..usize::from(self.length)),
        }
    }

    /// Keeps nothing any more. Gives back what is to be dropped where no lock is held.
    #[inline]
    pub(crate) fn clear(&mut self) -> Option<Bytes> {
        self.length = 0;
        self.shared.take()
    }
}

/// Few bytes where an archive among them is aligned.
#[repr(align(16))]
struct Aligned([u8; FEW]);

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_last_is_shared_whatever_its_size() {
        let mut kept = Kept::default();
        for length in [0, 1, FEW, FEW + 1, 1000, FEW, 0, 1000, 16] {
            let payload: Bytes = (0..=250).cycle().take(length).collect();
            kept.keep(&payload);
            assert_eq!((kept.bytes(), kept.share()), (&payload[..], payload.clone()));
            assert_eq!(kept.is_empty(), length == 0);
            assert!(length > FEW || kept.share().as_ptr().addr().is_multiple_of(16) || length == 0);
        }
        kept.clear();
        assert!(kept.is_empty() && kept.share().is_empty());
    }

    #[test]
    fn many_bytes_are_shared_and_few_are_not() {
        let mut kept = Kept::default();
        let many = Bytes::from(vec![1; FEW + 1]);
        assert_eq!(kept.keep(&many), None);
        assert!(!many.is_unique());
        let few = Bytes::from(vec![1; FEW]);
        assert_eq!(kept.keep(&few), Some(many.clone()));
        assert!(many.is_unique() && few.is_unique());
    }
}
