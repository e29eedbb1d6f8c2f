//! What a server publishes of its keys, and whether it can be believed (KEY-01 to KEY-04).

use std::time::Duration;

use ring::signature::{ED25519, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::canonical_json::{encode_signed_part, read_object};
use super::folded_name::FoldedName;
use super::remote_keys::VerifyKey;
use super::signing_key::{KeyId, from_base64};
use crate::types::{ServerName, UnixMillis};

/// How many keys an answer may list; servers have one or two.
const MAX_KEYS: usize = 64;

/// How many documents a notary's answer may hold. It may return more than was asked for (KEY-08).
const MAX_DOCUMENTS: usize = 64;

/// The longest that any key is good, whatever its server says (KEY-04, FLD-29).
pub const MAX_VALIDITY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Keys that are good for requests, until when.
#[derive(Debug, Clone)]
pub struct KeyDocument {
    /// Whose they are, by the exact name that the server gives itself.
    pub server_name: ServerName,
    /// The keys, at least one; those of `old_verify_keys` are not among them (XM-10).
    pub keys: Vec<(KeyId, VerifyKey)>,
    /// When they are no longer good.
    pub valid_until: UnixMillis,
}

/// What a notary answers. Its documents are read each for itself, since each has another author.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    server_keys: Vec<&'a RawValue>,
}

/// A document that a notary hands on, and what the notary has signed of it.
pub struct Notarised {
    /// The document, which its own server has signed.
    pub document: KeyDocument,
    /// What is signed.
    message: Vec<u8>,
    /// The notary's signatures, by key.
    signatures: Vec<(KeyId, [u8; 64])>,
}

/// Reads what a server says of its own keys.
///
/// A key is taken if it has itself signed the document: whoever publishes another's key as their own
/// cannot show that. That a document is refused altogether because one of several keys has not signed
/// it would help nobody. The server may spell its name in another way than whoever asked for it: it is
/// the same server, and this is its name.
///
/// # Errors
///
/// In a few words, why it is not believed.
pub fn read(
    json: &[u8],
    server: &ServerName,
    now: UnixMillis,
) -> Result<KeyDocument, &'static str> {
    let object = read_object(json).map_err(|_| "it is not a strict JSON object")?;
    let named = object.get("server_name").and_then(Value::as_str);
    let named = named.and_then(|text| text.parse::<ServerName>().ok());
    let named = named.filter(|named| FoldedName::of(named) == FoldedName::of(server));
    let named = named.ok_or("it is of another server")?;
    read_signed(&object, &named, now).map(|(document, _)| document)
}

/// Reads what a notary says of another server's keys (KEY-07): of all documents those that this server
/// itself has signed, the one that is good for longest first.
///
/// # Errors
///
/// In a few words, why there is none.
pub fn read_notarised(
    json: &[u8],
    server: &ServerName,
    notary: &ServerName,
    now: UnixMillis,
) -> Result<Vec<Notarised>, &'static str> {
    let Answer { server_keys: documents } =
        serde_json::from_slice(json).map_err(|_| "it is not an object with a list server_keys")?;
    if documents.len() > MAX_DOCUMENTS {
        return Err("it holds too many documents");
    }
    let mut found = Vec::new();
    let mut reason = "the notary has nothing of this server";
    for document in documents {
        // One that cannot be read or believed says nothing of the others.
        let Ok(object) = read_object(document.get().as_bytes()) else { continue };
        if !is_of(&object, server) {
            continue;
        }
        match read_signed(&object, server, now) {
            Ok((document, message)) => {
                let signatures = signatures(&object, notary);
                found.push(Notarised { document, message, signatures });
            }
            Err(why) => reason = why,
        }
    }
    found.sort_by_key(|notarised| std::cmp::Reverse(notarised.document.valid_until));
    if found.is_empty() { Err(reason) } else { Ok(found) }
}

impl Notarised {
    /// Returns the keys that the notary claims to have signed with.
    pub fn key_ids(&self) -> impl Iterator<Item = &KeyId> {
        self.signatures.iter().map(|(id, _)| id)
    }

    /// Whether one of the signatures is that of a notary's key.
    pub fn is_signed_by(&self, id: &KeyId, key: &VerifyKey) -> bool {
        let signature = self.signatures.iter().find(|(other, _)| other == id);
        signature.is_some_and(|(_, signature)| key.verify(&self.message, signature).is_ok())
    }
}

fn is_of(object: &Map<String, Value>, server: &ServerName) -> bool {
    object.get("server_name").and_then(Value::as_str) == Some(server.as_str())
}

/// Takes the keys that have signed a server's object; returns what they have signed, too.
fn read_signed(
    object: &Map<String, Value>,
    server: &ServerName,
    now: UnixMillis,
) -> Result<(KeyDocument, Vec<u8>), &'static str> {
    let message = encode_signed_part(object).map_err(|_| "it has no canonical form")?;
    let published = object.get("valid_until_ts").and_then(Value::as_i64);
    let published = UnixMillis(published.ok_or("it has no valid_until_ts")?);
    if published <= now {
        return Err("its valid_until_ts is past");
    }
    let listed = object.get("verify_keys").and_then(Value::as_object);
    let listed = listed.ok_or("it has no verify_keys")?;
    if listed.len() > MAX_KEYS {
        return Err("it lists too many keys");
    }
    let signatures = signatures(object, server);
    let keys: Vec<_> = listed
        .iter()
        .filter_map(|(id, key)| verify_key(id, key))
        .filter(|(id, key)| {
            let own = signatures.iter().find(|(other, _)| other == id);
            own.is_some_and(|(_, signature)| key.verify(&message, signature).is_ok())
        })
        .collect();
    if keys.is_empty() {
        return Err("none of the keys in it has signed it");
    }
    let valid_until = published.min(now.plus(MAX_VALIDITY));
    Ok((KeyDocument { server_name: server.clone(), keys, valid_until }, message))
}

/// Reads a listed key, unless it is of an unknown algorithm or broken (CJ-05).
fn verify_key(id: &str, key: &Value) -> Option<(KeyId, VerifyKey)> {
    let bytes = from_base64(key.get("key")?.as_str()?.as_bytes())?;
    Some((id.parse().ok()?, UnparsedPublicKey::new(&ED25519, bytes)))
}

/// Reads the signatures of one server that are of the known algorithm; no more than keys are taken.
fn signatures(object: &Map<String, Value>, server: &ServerName) -> Vec<(KeyId, [u8; 64])> {
    let own = object.get("signatures").and_then(|all| all.get(server.as_str()));
    let own = own.and_then(Value::as_object).into_iter().flatten();
    own.take(MAX_KEYS)
        .filter_map(|(id, text)| Some((id.parse().ok()?, from_base64(text.as_str()?.as_bytes())?)))
        .collect()
}

#[cfg(test)]
pub mod samples {
    //! Key documents as servers publish them.

    use serde_json::json;

    use super::super::signing_key::SigningKey;
    use super::*;

    /// Writes what a server publishes.
    pub fn document(server: &str, keys: &[&SigningKey], valid_until: UnixMillis) -> Value {
        let listed: Map<String, Value> = keys
            .iter()
            .map(|key| (key.id().to_string(), json!({"key": key.public_key()})))
            .collect();
        let document = json!({
            "server_name": server,
            "valid_until_ts": valid_until.0,
            "verify_keys": listed,
            "old_verify_keys": {},
        });
        keys.iter().fold(document, |document, key| signed(document, server, key))
    }

    /// Adds a signature.
    pub fn signed(mut document: Value, by: &str, key: &SigningKey) -> Value {
        let message = encode_signed_part(document.as_object().unwrap()).unwrap();
        document["signatures"][by][key.id().as_str()] = key.sign(&message).into();
        document
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::signing_key::{KeySeed, SigningKey};
    use super::samples::{document, signed};
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const HOUR: i64 = 60 * 60 * 1000;

    fn key() -> SigningKey {
        KeySeed::generate().unwrap().signing_key()
    }

    fn later(hours: i64) -> UnixMillis {
        UnixMillis(NOW.0 + hours * HOUR)
    }

    fn name(text: &str) -> ServerName {
        text.parse().unwrap()
    }

    fn read_value(document: &Value) -> Result<KeyDocument, &'static str> {
        read(document.to_string().as_bytes(), &name("a.example"), NOW)
    }

    fn ids(document: &KeyDocument) -> Vec<&str> {
        document.keys.iter().map(|(id, _)| id.as_str()).collect()
    }

    /// KEY-01, KEY-03
    #[test]
    fn keys_that_have_signed_their_document_are_believed() {
        let keys = [key(), key()];
        let read = read_value(&document("a.example", &[&keys[0], &keys[1]], later(24))).unwrap();
        assert_eq!(read.keys.len(), 2);
        assert_eq!(read.valid_until, later(24));
        for key in &keys {
            let (_, found) = read.keys.iter().find(|(id, _)| id == key.id()).unwrap();
            assert_eq!(found.as_ref(), key.verify_key().as_ref());
        }
    }

    /// KEY-04, FLD-29, threats FE-05
    #[test]
    fn no_key_is_good_for_more_than_a_week_or_after_its_time() {
        let key = key();
        let week = UnixMillis(NOW.0 + 7 * 24 * HOUR);
        for (published, until) in [
            (later(1), later(1)),
            (week, week),
            (later(50 * 365 * 24), week),
            (UnixMillis((1 << 53) - 1), week),
        ] {
            let read = read_value(&document("a.example", &[&key], published)).unwrap();
            assert_eq!(read.valid_until, until);
        }
        for past in [NOW, later(-1), UnixMillis(0), UnixMillis(-1)] {
            let refused = read_value(&document("a.example", &[&key], past)).unwrap_err();
            assert!(refused.contains("past"), "{refused}");
        }
    }

    /// XM-10
    #[test]
    fn old_keys_are_no_keys() {
        let (new, old) = (key(), key());
        let mut published = document("a.example", &[&new], later(24));
        published["old_verify_keys"][old.id().as_str()] =
            json!({"key": old.public_key(), "expired_ts": later(24).0});
        for by in [&new, &old] {
            published = signed(published, "a.example", by);
        }
        assert_eq!(ids(&read_value(&published).unwrap()), [new.id().as_str()]);
    }

    /// KEY-03, threats FE-09
    #[test]
    fn documents_that_cannot_be_believed_are_refused() {
        let (own, other) = (key(), key());
        let good = document("a.example", &[&own], later(24));
        let id = own.id().as_str();
        let altered = |alter: &dyn Fn(&mut Value)| {
            let mut document = good.clone();
            alter(&mut document);
            read_value(&document).unwrap_err()
        };
        let unsigned = altered(&|document| document["signatures"] = json!({}));
        assert!(unsigned.contains("signed"), "{unsigned}");
        for alter in [
            &(|it: &mut Value| it["valid_until_ts"] = later(25).0.into()) as &dyn Fn(&mut Value),
            &|it| it["verify_keys"][id]["key"] = other.public_key().into(),
            &|it| it["verify_keys"][id]["key"] = "short".into(),
            &|it| it["verify_keys"]["ed25519:new"] = json!({"key": other.public_key()}),
            &|it| it["signatures"]["a.example"][id] = other.sign(b"").into(),
            &|it| it["signatures"]["a.example"][id] = "not base64!".into(),
            &|it| it["signatures"]["a.example"][id] = json!({}),
            &|it| it["signatures"] = json!({"b.example": it["signatures"]["a.example"]}),
            &|it| it["signatures"] = "text".into(),
            &|it| it["verify_keys"] = json!({}),
        ] {
            assert_eq!(altered(alter), "none of the keys in it has signed it");
        }
        for (member, reason) in [
            ("server_name", "another server"),
            ("valid_until_ts", "no valid_until_ts"),
            ("verify_keys", "no verify_keys"),
        ] {
            for value in [Value::Null, json!(true), json!([]), json!("")] {
                let refused = altered(&|document| document[member] = value.clone());
                assert!(refused.contains(reason), "{member}: {refused}");
            }
        }
        let foreign = document("b.example", &[&own], later(24));
        assert_eq!(read_value(&foreign).unwrap_err(), "it is of another server");
        let port = document("a.example:8448", &[&own], later(24));
        assert_eq!(read_value(&port).unwrap_err(), "it is of another server");
        for text in ["", "[]", "<html>", "{\"server_name\":\"a.example\",\"server_name\":\"\"}"] {
            assert!(read(text.as_bytes(), &name("a.example"), NOW).is_err(), "{text}");
        }
    }

    /// KEY-03
    #[test]
    fn a_document_is_of_the_name_that_it_gives_in_whatever_spelling_it_was_asked_for() {
        let own = key();
        let upper = document("A.example", &[&own], later(24));
        assert_eq!(read_value(&upper).unwrap().server_name, name("A.example"));
        let mut forged = upper;
        forged["signatures"] = json!({"a.example": forged["signatures"]["A.example"]});
        assert_eq!(read_value(&forged).unwrap_err(), "none of the keys in it has signed it");
    }

    /// KEY-03
    #[test]
    fn a_listed_key_that_has_not_signed_is_not_taken() {
        let (own, stolen) = (key(), key());
        let mut published = document("a.example", &[&own], later(24));
        published["verify_keys"][stolen.id().as_str()] = json!({"key": stolen.public_key()});
        published["verify_keys"]["rsa:1"] = json!({"key": "abc"});
        let published = signed(published, "a.example", &own);
        assert_eq!(ids(&read_value(&published).unwrap()), [own.id().as_str()]);
    }

    /// Threats FE-06
    #[test]
    fn a_document_of_very_many_keys_is_refused() {
        let own = key();
        let with = |count: usize| {
            let mut published = document("a.example", &[&own], later(24));
            for number in 1..count {
                published["verify_keys"][format!("ed25519:{number}")] =
                    json!({"key": own.public_key()});
            }
            read_value(&signed(published, "a.example", &own))
        };
        assert!(with(MAX_KEYS).is_ok());
        assert_eq!(with(MAX_KEYS + 1).unwrap_err(), "it lists too many keys");
        assert_eq!(with(200).unwrap_err(), "it lists too many keys");
    }

    fn read_answer(documents: &[&Value]) -> Result<Vec<Notarised>, &'static str> {
        let answer = json!({"server_keys": documents}).to_string();
        read_notarised(answer.as_bytes(), &name("a.example"), &name("n.example"), NOW)
    }

    /// KEY-07, KEY-08
    #[test]
    fn of_what_a_notary_returns_the_document_that_is_good_for_longest_is_first() {
        let (own, notary) = (key(), key());
        let notarised =
            |server, hours| signed(document(server, &[&own], later(hours)), "n.example", &notary);
        let (short, long, other) =
            (notarised("a.example", 1), notarised("a.example", 2), notarised("b.example", 3));
        let found = read_answer(&[&short, &other, &long]).unwrap();
        let until: Vec<_> = found.iter().map(|it| it.document.valid_until).collect();
        assert_eq!(until, [later(2), later(1)]);
        assert_eq!(found[0].key_ids().collect::<Vec<_>>(), [notary.id()]);
        assert!(found[0].is_signed_by(notary.id(), &notary.verify_key()));
        assert!(!found[0].is_signed_by(notary.id(), &own.verify_key()));
        assert!(!found[0].is_signed_by(own.id(), &own.verify_key()));
    }

    /// KEY-08
    #[test]
    fn documents_that_cannot_be_read_do_not_spoil_the_others() {
        let (own, notary) = (key(), key());
        let good = signed(document("a.example", &[&own], later(1)), "n.example", &notary);
        let mut odd = good.clone();
        odd["weight"] = json!(0.5);
        assert!(read_answer(&[&odd]).is_err());
        let past = document("a.example", &[&own], NOW);
        for documents in [[&odd, &past, &good], [&good, &past, &odd]] {
            assert_eq!(read_answer(&documents).unwrap().len(), 1);
        }
    }

    /// KEY-07, threats FE-09
    #[test]
    fn a_notary_cannot_speak_for_a_server_that_has_not_signed() {
        let (own, notary) = (key(), key());
        let mut forged = document("a.example", &[&own], later(2));
        forged["signatures"] = json!({});
        let forged = signed(forged, "n.example", &notary);
        assert!(read_answer(&[&forged]).is_err());
        assert!(read_answer(&[]).is_err());
        assert!(read_answer(&[&json!("text"), &json!(null)]).is_err());
        let past = signed(document("a.example", &[&own], NOW), "n.example", &notary);
        assert_eq!(read_answer(&[&past]).err(), Some("its valid_until_ts is past"));
        let many = vec![&past; MAX_DOCUMENTS + 1];
        assert_eq!(read_answer(&many).err(), Some("it holds too many documents"));
    }
}
