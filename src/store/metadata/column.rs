//! Our words as columns, and columns as our words.

use std::error::Error;
use std::str::FromStr;
use std::sync::Arc;

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};

use crate::store::MediaSource;
use crate::types::{
    ContentHash, ContentType, FileName, ThumbnailEncoding, ThumbnailMethod, UnixMillis, UserId,
};

impl ToSql for ContentHash {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(self.as_bytes())))
    }
}

impl FromSql for ContentHash {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        <[u8; 32]>::column_result(value).map(Self)
    }
}

impl ToSql for UnixMillis {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for UnixMillis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_i64().map(Self)
    }
}

impl ToSql for MediaSource {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Owned => "owned",
            Self::Upstream => "upstream",
            Self::Remote => "remote",
        }
        .into())
    }
}

impl FromSql for MediaSource {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "owned" => Ok(Self::Owned),
            "upstream" => Ok(Self::Upstream),
            "remote" => Ok(Self::Remote),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl FromSql for ThumbnailMethod {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let method = value.as_str()?;
        [Self::Scale, Self::Crop]
            .into_iter()
            .find(|known| known.as_str() == method)
            .ok_or(FromSqlError::InvalidType)
    }
}

impl ToSql for ThumbnailEncoding {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Universal => "universal",
            Self::WebP => "webp",
        }
        .into())
    }
}

impl FromSql for ThumbnailEncoding {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "universal" => Ok(Self::Universal),
            "webp" => Ok(Self::WebP),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

impl FromSql for ContentType {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_bytes().map(|bytes| Self::from_header(Some(bytes)))
    }
}

impl FromSql for UserId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map_err(FromSqlError::other)
    }
}

/// A text with its own grammar.
pub(super) struct Parsed<T>(pub(super) T);

impl<T> FromSql for Parsed<T>
where
    T: FromStr,
    T::Err: Error + Send + Sync + 'static,
{
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_str()?.parse().map(Self).map_err(FromSqlError::other)
    }
}

/// A file name that is `None` when nothing of it may be kept.
pub(super) struct Cleaned(pub(super) Option<FileName>);

impl FromSql for Cleaned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(Self(value.as_str_or_null()?.and_then(FileName::clean)))
    }
}

/// A count or a size. The database knows only signed numbers; the schema keeps these
/// from being negative.
pub(super) struct Unsigned(pub(super) u64);

impl ToSql for Unsigned {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let number = i64::try_from(self.0)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok(number.into())
    }
}

impl FromSql for Unsigned {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// Checksums as little-endian numbers of four bytes each.
pub(super) struct Checksums(pub(super) Arc<[u32]>);

impl ToSql for Checksums {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let bytes = self.0.iter().flat_map(|checksum| checksum.to_le_bytes()).collect();
        Ok(ToSqlOutput::Owned(Value::Blob(bytes)))
    }
}

impl FromSql for Checksums {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let (checksums, []) = value.as_blob()?.as_chunks() else {
            return Err(FromSqlError::InvalidType);
        };
        Ok(Self(checksums.iter().copied().map(u32::from_le_bytes).collect()))
    }
}
