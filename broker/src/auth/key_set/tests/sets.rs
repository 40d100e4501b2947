//! Key sets that are read, before any token is.

use serde_json::json;

use super::{jwk, pair, with};
use crate::auth::key_set::{KeySet, KeySetError, TokenPolicy};

#[test]
fn key_sets_that_cannot_be_right_are_refused() {
    let (one, two) = (pair(), pair());
    let mut private = jwk(&one, "k1");
    private["d"] = json!("c2VjcmV0");
    let cases = [
        (
            json!({ "keys": [private] }),
            KeySetError::Private("k1".to_owned()),
        ),
        (
            json!({ "keys": [jwk(&one, "k1"), jwk(&two, "k1")] }),
            KeySetError::Twice("k1".to_owned()),
        ),
        (json!({ "keys": [jwk(&one, "")] }), KeySetError::KeyId),
        (
            json!({ "keys": [jwk(&one, &"k".repeat(129))] }),
            KeySetError::KeyId,
        ),
        (
            json!({ "keys": [with(jwk(&one, "k1"), "x", json!("AAAA"))] }),
            KeySetError::Damaged("k1".to_owned()),
        ),
        (
            json!({ "keys": [with(jwk(&one, "k1"), "use", json!("enc"))] }),
            KeySetError::Empty,
        ),
        (json!({ "keys": [] }), KeySetError::Empty),
    ];
    for (document, error) in cases {
        assert_eq!(
            KeySet::parse(document.to_string().as_bytes(), TokenPolicy::default()).unwrap_err(),
            error,
            "{document}"
        );
    }
    for text in ["", "{}", "[]", "{\"keys\": {}}"] {
        assert!(
            matches!(
                KeySet::parse(text.as_bytes(), TokenPolicy::default()),
                Err(KeySetError::Form(_))
            ),
            "{text}"
        );
    }
}

#[test]
fn keys_of_other_kinds_do_not_disturb() {
    let one = pair();
    let symmetric = json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "h1", "alg": "HS256" });
    let agreement = json!({ "kty": "OKP", "crv": "X25519", "x": "AAAA", "kid": "x1" });
    let of_tomorrow = json!({ "kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA", "kid": "p1" });
    let set = KeySet::parse(
        json!({ "keys": [symmetric, agreement, of_tomorrow, jwk(&one, "k1")] })
            .to_string()
            .as_bytes(),
        TokenPolicy::default(),
    )
    .unwrap();
    assert_eq!(set.len(), 1);
}
