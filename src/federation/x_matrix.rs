//! The `Authorization: X-Matrix` field: what is signed, and how the field is read.
//!
//! A request may carry several fields, one for each key (XM-09). They have to name one origin, and none
//! may name another destination than the rest; fields of unknown algorithms are passed over (CJ-05),
//! and one good signature among the others is enough: a server that signs with a new key beside the old
//! one must not be locked out by whoever knows only one of them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, header};

use super::canonical_json::write_text;
use super::remote_keys::VerifyKey;
use super::signing_key::{KeyId, from_base64};
use crate::types::ServerName;

/// The longest field that is read, in bytes. Two server names, a key id and a signature take a fifth.
const MAX_FIELD_LENGTH: usize = 4096;

/// How many fields one request may have.
const MAX_FIELDS: usize = 8;

/// How many parameters one field may have; four are defined.
const MAX_PARAMETERS: usize = 16;

/// Why a request carries no claim that could be checked. The texts are for whoever runs the server that
/// sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XMatrixError {
    /// There is no `Authorization`.
    #[error("the request is not signed: it has no X-Matrix Authorization")]
    Missing,
    /// There is one of another kind.
    #[error("the Authorization is not of the scheme X-Matrix")]
    OtherScheme,
    /// More or longer fields than are read.
    #[error("the X-Matrix Authorization is too long")]
    TooLong,
    /// It is not a list of parameters.
    #[error("the X-Matrix Authorization is not a list of name=value")]
    Syntax,
    /// A parameter comes twice.
    #[error("the X-Matrix Authorization has a parameter twice")]
    Duplicate,
    /// A parameter is not there.
    #[error("the X-Matrix Authorization has no {0}")]
    NoParameter(&'static str),
    /// A parameter is there and is not what it should be.
    #[error("the {0} in the X-Matrix Authorization is not valid")]
    InvalidParameter(&'static str),
    /// Several fields do not name the same servers.
    #[error("the X-Matrix Authorizations do not name the same servers")]
    Contradiction,
    /// All signatures are of other algorithms than Ed25519.
    #[error("the X-Matrix Authorization has no signature of the algorithm ed25519")]
    UnknownAlgorithm,
}

/// A signature, and which key has made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key.
    pub key_id: KeyId,
    /// The signature.
    pub bytes: [u8; 64],
}

impl Signature {
    /// Whether it is this key's under a message.
    pub fn verifies(&self, key: &VerifyKey, message: &[u8]) -> bool {
        key.verify(message, &self.bytes).is_ok()
    }
}

/// One field, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XMatrix {
    /// The server that claims to have sent the request.
    pub origin: ServerName,
    /// For whom it is; old servers do not say (XM-05).
    pub destination: Option<ServerName>,
    /// The signature, unless it is of an unknown algorithm.
    pub signature: Option<Signature>,
}

/// What all fields of a request say together, before anybody knows whether it is true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The server that claims to have sent it.
    pub origin: ServerName,
    /// For whom it is, if it says so.
    pub destination: Option<ServerName>,
    /// At least one signature, and few.
    pub signatures: Vec<Signature>,
}

/// Writes what is signed of a request without a body, as canonical JSON (XM-01 to XM-03).
///
/// The target goes in as it stands on the request line. `destination` is always among it: servers that
/// do not name it in the header sign it nevertheless (XM-05).
pub fn signed_request(
    method: &Method,
    target: &str,
    origin: &ServerName,
    destination: &ServerName,
) -> Vec<u8> {
    let mut json = Vec::with_capacity(target.len() + 128);
    let members = [
        ("destination", destination.as_str()),
        ("method", method.as_str()),
        ("origin", origin.as_str()),
        ("uri", target),
    ];
    for (index, (name, value)) in members.into_iter().enumerate() {
        json.push(if index == 0 { b'{' } else { b',' });
        write_text(name, &mut json);
        json.push(b':');
        write_text(value, &mut json);
    }
    json.push(b'}');
    json
}

impl Claim {
    /// Reads all `Authorization` fields of a request (XM-07, XM-09).
    ///
    /// # Errors
    ///
    /// [`XMatrixError`] if there is none, if any of them is not of the scheme or cannot be read, if they
    /// contradict each other, or if no signature is of a known algorithm.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, XMatrixError> {
        let mut claim: Option<Self> = None;
        for (index, field) in headers.get_all(header::AUTHORIZATION).iter().enumerate() {
            if index == MAX_FIELDS {
                return Err(XMatrixError::TooLong);
            }
            let field = XMatrix::parse(field.as_bytes())?;
            match &mut claim {
                Some(claim) => claim.add(field)?,
                None => claim = Some(field.into()),
            }
        }
        let claim = claim.ok_or(XMatrixError::Missing)?;
        if claim.signatures.is_empty() { Err(XMatrixError::UnknownAlgorithm) } else { Ok(claim) }
    }

    /// Writes the claim anew, a field for each signature: to whoever reads them, these fields mean what
    /// has been read here and nothing else (XM-04, XM-06).
    pub fn fields(&self) -> Vec<HeaderValue> {
        let Self { origin, destination, signatures } = self;
        let destination = destination
            .as_ref()
            .map_or_else(String::new, |name| format!(",destination=\"{name}\""));
        let field = |signature: &Signature| {
            let (key, bytes) = (&signature.key_id, STANDARD_NO_PAD.encode(signature.bytes));
            let text =
                format!("X-Matrix origin=\"{origin}\"{destination},key=\"{key}\",sig=\"{bytes}\"");
            HeaderValue::try_from(text).expect("names, ids and base64 fit a header")
        };
        signatures.iter().map(field).collect()
    }

    fn add(&mut self, field: XMatrix) -> Result<(), XMatrixError> {
        let is_same = |other: &ServerName| self.destination.as_ref().is_none_or(|it| it == other);
        if field.origin != self.origin || !field.destination.as_ref().is_none_or(is_same) {
            return Err(XMatrixError::Contradiction);
        }
        self.destination = self.destination.take().or(field.destination);
        self.signatures.extend(field.signature);
        Ok(())
    }
}

impl From<XMatrix> for Claim {
    fn from(field: XMatrix) -> Self {
        let XMatrix { origin, destination, signature } = field;
        Self { origin, destination, signatures: signature.into_iter().collect() }
    }
}

impl XMatrix {
    /// Reads one field: the scheme and the names in any case, values quoted or bare, in any order,
    /// with blanks around commas; unknown parameters are passed over (XM-07).
    ///
    /// Bare values may hold what server names, key ids and base64 are made of, colons and slashes too,
    /// since some servers quote only what they must.
    ///
    /// # Errors
    ///
    /// [`XMatrixError`] if it is of another scheme or cannot be read.
    pub fn parse(field: &[u8]) -> Result<Self, XMatrixError> {
        if field.len() > MAX_FIELD_LENGTH {
            return Err(XMatrixError::TooLong);
        }
        let mut reader = Reader { rest: field.trim_ascii() };
        if !reader.token().eq_ignore_ascii_case(b"x-matrix") {
            return Err(XMatrixError::OtherScheme);
        }
        let parameters = reader.parameters()?;
        let text = |name| find(&parameters, name);
        let required = |name| text(name)?.ok_or(XMatrixError::NoParameter(name));
        let server = |name, text: &str| {
            text.parse::<ServerName>().map_err(|_| XMatrixError::InvalidParameter(name))
        };
        let origin = server("origin", required("origin")?)?;
        let destination =
            text("destination")?.map(|text| server("destination", text)).transpose()?;
        let signature = signature(required("key")?, required("sig")?)?;
        Ok(Self { origin, destination, signature })
    }
}

/// Reads key id and signature; none if the algorithm is not known.
fn signature(key: &str, signature: &str) -> Result<Option<Signature>, XMatrixError> {
    let (algorithm, _) = key.split_once(':').ok_or(XMatrixError::InvalidParameter("key"))?;
    if algorithm != "ed25519" {
        return Ok(None);
    }
    let key_id = key.parse().map_err(|_| XMatrixError::InvalidParameter("key"))?;
    let bytes = from_base64(signature.as_bytes()).ok_or(XMatrixError::InvalidParameter("sig"))?;
    Ok(Some(Signature { key_id, bytes }))
}

/// Finds a parameter whose value has to be a text.
fn find<'p>(
    parameters: &'p [Parameter<'_>],
    name: &'static str,
) -> Result<Option<&'p str>, XMatrixError> {
    let found = parameters.iter().find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()));
    let text = found.map(|(_, value)| std::str::from_utf8(value)).transpose();
    text.map_err(|_| XMatrixError::InvalidParameter(name))
}

/// A name as it was written, and its value without quotes and escapes.
type Parameter<'f> = (&'f [u8], Vec<u8>);

/// What is left of a field (RFC 9110, sections 5.6 and 11.4).
struct Reader<'f> {
    rest: &'f [u8],
}

impl<'f> Reader<'f> {
    /// Reads all parameters, of which no two have the same name. Empty elements of the list are
    /// passed over (RFC 9110, section 5.6.1.2).
    fn parameters(&mut self) -> Result<Vec<Parameter<'f>>, XMatrixError> {
        let mut parameters: Vec<Parameter<'_>> = Vec::new();
        let mut may_begin = self.blanks();
        while !self.rest.is_empty() {
            if self.take(b',') {
                may_begin = true;
            } else {
                if !may_begin {
                    return Err(XMatrixError::Syntax);
                }
                let (name, value) = self.parameter()?;
                if parameters.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
                    return Err(XMatrixError::Duplicate);
                }
                if parameters.len() == MAX_PARAMETERS {
                    return Err(XMatrixError::TooLong);
                }
                parameters.push((name, value));
                may_begin = false;
            }
            self.blanks();
        }
        Ok(parameters)
    }

    fn parameter(&mut self) -> Result<Parameter<'f>, XMatrixError> {
        let name = self.token();
        self.blanks();
        if name.is_empty() || !self.take(b'=') {
            return Err(XMatrixError::Syntax);
        }
        self.blanks();
        let value = if self.take(b'"') { self.quoted()? } else { self.bare().to_vec() };
        Ok((name, value))
    }

    /// Reads what is behind a quotation mark, up to the next that is not escaped.
    fn quoted(&mut self) -> Result<Vec<u8>, XMatrixError> {
        let mut value = Vec::new();
        loop {
            match self.next().ok_or(XMatrixError::Syntax)? {
                b'"' => return Ok(value),
                b'\\' => value.push(self.next().ok_or(XMatrixError::Syntax)?),
                byte => value.push(byte),
            }
        }
    }

    fn token(&mut self) -> &'f [u8] {
        self.take_while(is_token)
    }

    fn bare(&mut self) -> &'f [u8] {
        self.take_while(|byte| is_token(byte) || b":/=[]@".contains(&byte))
    }

    /// Passes over blanks and tabs and says whether there were any.
    fn blanks(&mut self) -> bool {
        !self.take_while(|byte| byte == b' ' || byte == b'\t').is_empty()
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'f [u8] {
        let end = self.rest.iter().position(|&byte| !belongs(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn take(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }
}

/// Whether a byte belongs to tokens (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
