//! Attacks on tokens and on key sets. Tokens are put together by hand here, so that any header and any signature can be tried.

mod sets;

use rialto_protocol::ids::UserId;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::*;
use crate::auth::signing::{NewToken, SigningKey};

const NOW_S: u64 = 1_700_000_000;
const NOW_MS: u64 = NOW_S * 1000;

/// An issuer, and the set that trusts it.
struct Issuer {
    pair: Ed25519KeyPair,
    keys: KeySet,
}

impl Issuer {
    fn new() -> Self {
        let pair = pair();
        let keys = KeySet::parse(
            json!({ "keys": [jwk(&pair, "k1")] }).to_string().as_bytes(),
            TokenPolicy::default(),
        )
        .unwrap();
        Self { pair, keys }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = base64url(self.pair.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }

    fn verify(&self, token: &str) -> Result<Identity, ErrorCode> {
        self.keys.verify(token, NOW_MS)
    }
}

fn pair() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

fn jwk(pair: &Ed25519KeyPair, kid: &str) -> Value {
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": base64url(pair.public_key().as_ref()) })
}

fn header() -> Value {
    json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "k1" })
}

fn claims() -> Value {
    json!({ "iss": "rialto", "aud": "rialto", "sub": "alice", "exp": NOW_S + 900 })
}

/// The value with one member replaced, or removed when `value` is null.
fn with(mut object: Value, name: &str, value: Value) -> Value {
    let members = object.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    object
}

fn message(header: &Value, claims: &Value) -> String {
    format!(
        "{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(claims.to_string().as_bytes())
    )
}

/// RFC 4648, section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(
                ALPHABET[(bits >> (18 - 6 * index) & 63) as usize],
            ));
        }
    }
    text
}

#[test]
fn a_token_in_order_names_its_user() {
    let issuer = Issuer::new();
    let identity = issuer.verify(&issuer.sign(&header(), &claims())).unwrap();
    assert_eq!(
        identity,
        Identity {
            user: UserId::from_name("alice"),
            expires_ms: (NOW_S + 900) * 1000,
            service: false,
            key: identity.key,
        }
    );
    for service in [
        json!({ "scope": "read service" }),
        json!({ "service": true }),
    ] {
        let mut claims = claims();
        claims
            .as_object_mut()
            .unwrap()
            .extend(service.as_object().unwrap().clone());
        assert!(
            issuer
                .verify(&issuer.sign(&header(), &claims))
                .unwrap()
                .service,
            "{service}"
        );
    }
    let scoped = with(claims(), "scope", json!("services xservice"));
    assert!(
        !issuer
            .verify(&issuer.sign(&header(), &scoped))
            .unwrap()
            .service,
        "a scope is compared as a whole word"
    );
}

#[test]
fn every_token_made_here_is_taken_here() {
    let key = SigningKey::generate().unwrap();
    let policy = TokenPolicy::default();
    let keys = KeySet::parse(key.key_set().as_bytes(), policy.clone()).unwrap();
    let token = key
        .sign(&NewToken {
            policy: &policy,
            subject: "bob",
            issued_ms: NOW_MS,
            life_s: 60,
            service: true,
        })
        .unwrap();
    let identity = keys.verify(&token, NOW_MS).unwrap();
    assert_eq!(
        identity,
        Identity {
            user: UserId::from_name("bob"),
            expires_ms: NOW_MS + 60_000,
            service: true,
            key: identity.key,
        }
    );
}

#[test]
fn headers_that_were_tampered_with_are_refused() {
    let issuer = Issuer::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let other = pair();
    let cases = [
        (
            "alg none",
            with(header(), "alg", json!("none")),
            ErrorCode::TokenMalformed,
        ),
        (
            "alg missing",
            with(header(), "alg", Value::Null),
            ErrorCode::TokenMalformed,
        ),
        (
            "alg HS256",
            with(header(), "alg", json!("HS256")),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "alg ES256",
            with(header(), "alg", json!("ES256")),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "typ missing",
            with(header(), "typ", Value::Null),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "typ JWT",
            with(header(), "typ", json!("JWT")),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "typ of a refresh token",
            with(header(), "typ", json!("rt+jwt")),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "kid missing",
            with(header(), "kid", Value::Null),
            ErrorCode::TokenKeyUnknown,
        ),
        (
            "kid unknown",
            with(header(), "kid", json!("k2")),
            ErrorCode::TokenKeyUnknown,
        ),
        (
            "kid a path",
            with(header(), "kid", json!("../../x")),
            ErrorCode::TokenKeyUnknown,
        ),
        (
            "kid SQL",
            with(header(), "kid", json!("k1' OR '1'='1")),
            ErrorCode::TokenKeyUnknown,
        ),
        (
            "kid a number",
            with(header(), "kid", json!(1)),
            ErrorCode::TokenMalformed,
        ),
        (
            "kid and jku elsewhere",
            json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k9", "jku": url, "x5u": url}),
            ErrorCode::TokenKeyUnknown,
        ),
        (
            "kid and key inside",
            json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "k9", "jwk": jwk(&other, "k9")}),
            ErrorCode::TokenKeyUnknown,
        ),
        (
            "crit",
            with(header(), "crit", json!(["b64"])),
            ErrorCode::TokenMalformed,
        ),
    ];
    for (name, header, code) in cases {
        assert_eq!(
            issuer.verify(&issuer.sign(&header, &claims())),
            Err(code),
            "{name}"
        );
    }
    assert!(
        listener.accept().is_err(),
        "nobody asked where the token said its key was"
    );
    assert!(
        issuer
            .verify(&issuer.sign(
                &with(header(), "typ", json!("application/AT+jwt")),
                &claims()
            ))
            .is_ok()
    );
}

#[test]
fn signatures_that_do_not_fit_are_refused() {
    let issuer = Issuer::new();
    let token = issuer.sign(&header(), &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = base64url(pair().sign(signed.as_bytes()).as_ref());
    let hs256 = with(header(), "alg", json!("HS256"));
    let forged = message(&hs256, &claims());
    let by_public_key = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, issuer.pair.public_key().as_ref()),
        forged.as_bytes(),
    );
    let promoted = message(&header(), &with(claims(), "sub", json!("admin")));
    let cases = [
        (
            "stripped",
            format!("{signed}."),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "stripped with its dot",
            signed.to_owned(),
            ErrorCode::TokenMalformed,
        ),
        (
            "duplicated",
            format!("{token}.{signature}"),
            ErrorCode::TokenMalformed,
        ),
        (
            "doubled in length",
            format!("{token}{signature}"),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "of another key",
            format!("{signed}.{other}"),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "of other claims",
            format!("{promoted}.{signature}"),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "HS256 with the public key",
            format!("{forged}.{}", base64url(by_public_key.as_ref())),
            ErrorCode::TokenSignatureInvalid,
        ),
        (
            "not base64",
            format!("{signed}.***"),
            ErrorCode::TokenMalformed,
        ),
    ];
    for (name, token, code) in cases {
        assert_eq!(issuer.verify(&token), Err(code), "{name}");
    }
}

#[test]
fn claims_that_are_missing_or_meant_for_others_are_refused() {
    let issuer = Issuer::new();
    let cases = [
        (
            "iss missing",
            "iss",
            Value::Null,
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "iss wrong",
            "iss",
            json!("somebody"),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "iss a number",
            "iss",
            json!(7),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "aud missing",
            "aud",
            Value::Null,
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "aud wrong",
            "aud",
            json!("files"),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "aud a list without us",
            "aud",
            json!(["files", "search"]),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "aud an empty list",
            "aud",
            json!([]),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "sub missing",
            "sub",
            Value::Null,
            ErrorCode::TokenClaimsRefused,
        ),
        ("sub empty", "sub", json!(""), ErrorCode::TokenClaimsRefused),
        (
            "sub the system",
            "sub",
            json!("00000000-0000-0000-0000-000000000000"),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "exp missing",
            "exp",
            Value::Null,
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "exp a text",
            "exp",
            json!("1900000000"),
            ErrorCode::TokenMalformed,
        ),
        (
            "exp past",
            "exp",
            json!(NOW_S - 60),
            ErrorCode::TokenExpired,
        ),
        (
            "exp negative",
            "exp",
            json!(-1),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "nbf to come",
            "nbf",
            json!(NOW_S + 61),
            ErrorCode::TokenClaimsRefused,
        ),
        (
            "service a text",
            "service",
            json!("true"),
            ErrorCode::TokenMalformed,
        ),
    ];
    for (name, claim, value, code) in cases {
        assert_eq!(
            issuer.verify(&issuer.sign(&header(), &with(claims(), claim, value))),
            Err(code),
            "{name}"
        );
    }
    let taken = [
        ("exp", json!(NOW_S - 59)),
        ("nbf", json!(NOW_S + 60)),
        ("aud", json!(["files", "rialto"])),
        ("exp", json!(1.9e9)),
    ];
    for (claim, value) in taken {
        assert!(
            issuer
                .verify(&issuer.sign(&header(), &with(claims(), claim, value.clone())))
                .is_ok(),
            "{claim} {value}"
        );
    }
}

#[test]
fn what_is_no_token_is_refused_before_anything_is_decoded() {
    let issuer = Issuer::new();
    let huge = issuer.sign(
        &header(),
        &with(claims(), "pad", json!("x".repeat(1 << 20))),
    );
    let nested = format!(
        "{}.{}.",
        base64url("[".repeat(1000).as_bytes()),
        base64url(b"{}")
    );
    for token in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "null",
        "\u{1f600}.\u{1f600}.\u{1f600}",
        &huge,
        &nested,
    ] {
        assert_eq!(
            issuer.verify(token),
            Err(ErrorCode::TokenMalformed),
            "{}",
            &token[..token.len().min(40)]
        );
    }
    for token in ["dev:alice", "dev-service:alice"] {
        assert_eq!(
            issuer.verify(token),
            Err(ErrorCode::DevelopmentTokenRefused)
        );
    }
}
