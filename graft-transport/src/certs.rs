//! Development certificates: an authority of one's own, in one call.
