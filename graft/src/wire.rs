//! What can travel: one trait that hides rkyv's bounds, and the only functions that call rkyv.

use rkyv::{
    Archive, Deserialize, Serialize,
    api::high::{self, HighDeserializer, HighSerializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::Error,
    ser::allocator::ArenaHandle,
    util::AlignedVec,
};

/// A type that graft can put into its log and take out again: rkyv can write it, check its bytes
/// and read it back.
///
/// Nobody implements this by hand. It holds for every type with these two lines above it, whose
/// fields are such types themselves (numbers, `String`, `Vec`, `Option`, ...):
///
/// ```
/// #[derive(graft::Archive, graft::Serialize, graft::Deserialize)]
/// #[rkyv(crate = graft::rkyv)]
/// struct Account { owner: String, balance: u64 }
/// # fn travels<T: graft::Wire>() {}
/// # travels::<Account>();
/// ```
pub trait Wire: Travels<Rkyv> {}

impl<T: Travels<Rkyv>> Wire for T {}

/// What [`Wire`] stands for. It has two implementations, of which one never applies, because then the
/// compiler names this trait and its advice. With one it would look through it and name rkyv's own.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel through graft's log",
    label = "its type needs two more lines above it",
    note = "write above the type:\n#[derive(graft::Archive, graft::Serialize, graft::Deserialize)]\n#[rkyv(crate = graft::rkyv)]",
    note = "its fields must be such types, too"
)]
pub trait Travels<By>:
    Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, Error>>
                      + Deserialize<Self, HighDeserializer<Error>>,
    > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>
    + Send
    + Sized
    + 'static
{
}

impl<T> Travels<Rkyv> for T where
    T: Archive<
            Archived: for<'a> CheckBytes<HighValidator<'a, Error>>
                          + Deserialize<T, HighDeserializer<Error>>,
        > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>
        + Send
        + 'static
{
}

impl<T, By: Never> Travels<By> for T where
    T: Archive<
            Archived: for<'a> CheckBytes<HighValidator<'a, Error>>
                          + Deserialize<T, HighDeserializer<Error>>,
        > + for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Error>>
        + Send
        + 'static
{
}

/// The only way to travel.
#[doc(hidden)]
#[derive(Debug)]
pub struct Rkyv;

/// Implemented by nothing.
#[doc(hidden)]
pub trait Never {}

/// Archives are read in place only where they begin at a multiple of this many bytes: no type of
/// rkyv's own wants more.
pub(crate) const ALIGNMENT: usize = 16;

/// The archive of `value`, for where it is not made often. [`Encoder`](crate::encode::Encoder) is for the others.
pub(crate) fn encode<T: Wire>(value: &T) -> Result<AlignedVec, Error> {
    high::to_bytes_in::<_, Error>(value, AlignedVec::new())
}

/// Reads a value from an archive that nobody vouches for.
pub(crate) fn decode<T: Wire>(bytes: &[u8]) -> Result<T, Error> {
    if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        return high::from_bytes::<T, Error>(bytes);
    }
    let mut aligned: AlignedVec = AlignedVec::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    high::from_bytes::<T, Error>(&aligned)
}

/// A number for the form in which this build archives. It depends on rkyv's features (byte order,
/// pointer width, alignment), which *any* dependency of the final program can change: stores keep
/// it and servers compare it.
pub(crate) fn format_fingerprint() -> u64 {
    type Probe = (u8, u32, u64, Option<u16>, String, Vec<u64>, (i128, bool, char));
    let probe: Probe = (
        1,
        0x0203_0405,
        0x0607_0809_0a0b_0c0d,
        Some(0x0e0f),
        "long enough to be kept out of line".to_owned(),
        vec![1, 2, 3],
        (-2, true, 'g'),
    );
    // A probe of plain numbers and short text always archives; were it not so, every build would
    // agree on the fingerprint of nothing.
    let archive = encode(&probe).unwrap_or_default();
    graft_core::stable_hash(&archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sample = (u8, String, Vec<u64>);

    fn sample() -> Sample {
        (7, "a string of more than eight bytes".into(), vec![1, 2, 3])
    }

    #[test]
    fn a_value_is_read_from_any_alignment() {
        let archive = encode(&sample()).unwrap();
        for shift in 0..ALIGNMENT {
            let mut moved: AlignedVec = AlignedVec::new();
            moved.resize(shift, 0);
            moved.extend_from_slice(&archive);
            assert_eq!(decode::<Sample>(&moved[shift..]).unwrap(), sample());
        }
    }

    #[test]
    fn bytes_that_are_no_archive_are_an_error_and_never_a_panic() {
        let archive = encode(&sample()).unwrap();
        for length in 0..archive.len() {
            // A shorter archive may still happen to be a valid one; it must only not panic.
            let _ = decode::<Sample>(&archive[..length]);
        }
        assert!(decode::<Sample>(&[]).is_err());
        assert!(decode::<Sample>(&[0xff; 64]).is_err());
    }

    #[test]
    fn equal_values_archive_to_equal_bytes() {
        // Replicas compare the checksums of their replies, so padding must not be left to chance.
        let value = (1_u8, 2_u64, Some(3_u16));
        assert_eq!(encode(&value).unwrap()[..], encode(&value).unwrap()[..]);
    }

    /// Stores keep this number: it may change only with a new format and a way to read the old one.
    #[test]
    fn the_fingerprint_of_the_default_format_never_changes() {
        assert_eq!(format_fingerprint(), 0x212c_2e1c_55dd_6a2c);
    }
}
