//! Who speaks: identities by certificate, for both ends of every connection.
