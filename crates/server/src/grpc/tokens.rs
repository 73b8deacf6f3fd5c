//! Opaque tokens: pages and positions, sealed.
//!
//! A token is encrypted and authenticated (XChaCha20-Poly1305) under a key of its own, with what it is good for (kind of
//! list, tenant, filters) as associated data. So a position, which would tell how busy other tenants are (I11), is not
//! readable, and a token is useless for another list, tenant or filter.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::RngCore as _;

/// Version of the form, the first byte of every token.
const VERSION: u8 = 1;
/// Bytes of a nonce.
const NONCE: usize = 24;
/// Longest token that is looked at, in characters.
const MAX_TOKEN: usize = 512;

/// What a token is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A page of `ListPayments`.
    Payments,
    /// A page of `ListEntries`.
    Entries,
    /// An event of `WatchPayments`.
    Watch,
    /// An entry of `TailEntries`.
    Tail,
    /// A page of `ListOperatorActions`.
    OperatorActions,
    /// The progress of `VerifyLog`.
    VerifyLog,
    /// A page of `ListNotificationEndpoints`.
    Endpoints,
    /// A page of `ListNotifications`.
    Notifications,
    /// A page of `ListWebhooks`.
    Webhooks,
}

impl TokenKind {
    /// Never change one: tokens of streams do not expire.
    const fn code(self) -> u8 {
        match self {
            Self::Payments => 1,
            Self::Entries => 2,
            Self::Watch => 3,
            Self::Tail => 4,
            Self::OperatorActions => 5,
            Self::VerifyLog => 6,
            Self::Endpoints => 40,
            Self::Notifications => 41,
            Self::Webhooks => 10,
        }
    }
}

/// Seals and opens tokens.
#[derive(Clone)]
pub struct Tokens {
    sealing: XChaCha20Poly1305,
    older: Vec<XChaCha20Poly1305>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// Tokens are made under the first key, and read under any; `None` without a key.
    pub fn new(keys: &[[u8; 32]]) -> Option<Self> {
        let mut ciphers = keys.iter().map(|key| XChaCha20Poly1305::new(key.into()));
        Some(Self {
            sealing: ciphers.next()?,
            older: ciphers.collect(),
        })
    }

    /// Seals `content` for what `bound` names. Empty only if the cipher fails, which it does for contents of 256 GiB.
    pub fn seal(&self, kind: TokenKind, bound: &[&[u8]], content: &[u8]) -> String {
        let mut nonce = [0; NONCE];
        rand::rng().fill_bytes(&mut nonce);
        let aad = associated_data(kind, bound);
        let payload = Payload {
            msg: content,
            aad: &aad,
        };
        let Ok(sealed) = self.sealing.encrypt(XNonce::from_slice(&nonce), payload) else {
            return String::new();
        };
        let mut token = Vec::with_capacity(1 + NONCE + sealed.len());
        token.push(VERSION);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&sealed);
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The content, if the token was sealed by us for the same.
    pub fn open<const N: usize>(
        &self,
        kind: TokenKind,
        bound: &[&[u8]],
        token: &str,
    ) -> Option<[u8; N]> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (version, rest) = bytes.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE)?;
        if *version != VERSION {
            return None;
        }
        let aad = associated_data(kind, bound);
        let open = |cipher: &XChaCha20Poly1305| {
            let payload = Payload {
                msg: sealed,
                aad: &aad,
            };
            cipher.decrypt(XNonce::from_slice(nonce), payload).ok()
        };
        let content = std::iter::once(&self.sealing)
            .chain(&self.older)
            .find_map(open)?;
        content.try_into().ok()
    }
}

/// Every part with its length before it, so that no two lists of parts read the same.
fn associated_data(kind: TokenKind, bound: &[&[u8]]) -> Vec<u8> {
    let mut data = b"quittance token".to_vec();
    data.extend_from_slice(&[VERSION, kind.code()]);
    for part in bound {
        data.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POSITION: [u8; 8] = 7_u64.to_be_bytes();

    fn tokens(keys: &[[u8; 32]]) -> Tokens {
        Tokens::new(keys).unwrap()
    }

    #[test]
    fn a_token_opens_only_for_what_it_was_sealed_for() {
        let tokens = tokens(&[[1; 32]]);
        let token = tokens.seal(TokenKind::Watch, &[b"acme"], &POSITION);
        assert!(token.len() <= MAX_TOKEN);
        let open = |kind, bound: &[&[u8]]| tokens.open::<8>(kind, bound, &token);
        assert_eq!(open(TokenKind::Watch, &[b"acme"]), Some(POSITION));
        assert_eq!(open(TokenKind::Tail, &[b"acme"]), None, "another list");
        assert_eq!(open(TokenKind::Watch, &[b"evil"]), None, "another tenant");
        assert_eq!(open(TokenKind::Watch, &[b"ac", b"me"]), None, "other parts");
        assert_eq!(
            tokens.open::<16>(TokenKind::Watch, &[b"acme"], &token),
            None
        );
    }

    #[test]
    fn i11_two_tokens_of_one_position_tell_nothing() {
        let tokens = tokens(&[[1; 32]]);
        let seal = || tokens.seal(TokenKind::Tail, &[], &POSITION);
        assert_ne!(seal(), seal());
    }

    #[test]
    fn older_keys_open_what_they_sealed() {
        let old = tokens(&[[1; 32]]).seal(TokenKind::Watch, &[], &POSITION);
        let open = |keys: &[[u8; 32]]| tokens(keys).open::<8>(TokenKind::Watch, &[], &old);
        assert_eq!(open(&[[2; 32], [1; 32]]), Some(POSITION));
        assert_eq!(open(&[[2; 32]]), None);
        assert!(Tokens::new(&[]).is_none());
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_token(text in ".{0,600}") {
            prop_assert_eq!(tokens(&[[1; 32]]).open::<8>(TokenKind::Watch, &[], &text), None);
        }

        #[test]
        fn no_changed_token_opens(at in 0_usize..70, bit in 0_u8..8) {
            let tokens = tokens(&[[1; 32]]);
            let token = tokens.seal(TokenKind::Watch, &[], &POSITION);
            let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(tokens.open::<8>(TokenKind::Watch, &[], &changed), None);
        }
    }
}
