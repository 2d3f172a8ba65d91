//! Columns of a row by name: their order and spelling differ between versions.

use std::borrow::Cow;

use mysql_async::{Row, Value};

/// A row of the text protocol.
pub(super) struct Fields<'a>(pub(super) &'a Row);

impl<'a> Fields<'a> {
    /// The first of these columns that exists, as the server sent it; `None` for NULL.
    pub(super) fn bytes(&self, names: &[&str]) -> Option<Cow<'a, [u8]>> {
        let columns = self.0.columns_ref();
        let at = names.iter().find_map(|name| {
            columns
                .iter()
                .position(|column| column.name_str().eq_ignore_ascii_case(name))
        })?;
        match self.0.as_ref(at)? {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(Cow::Borrowed(bytes)),
            other => Some(Cow::Owned(other.as_sql(true).into_bytes())),
        }
    }

    /// As text; bytes that are not UTF-8 are replaced.
    pub(super) fn text(&self, names: &[&str]) -> Option<String> {
        self.bytes(names)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As a number.
    pub(super) fn number<N: std::str::FromStr>(&self, names: &[&str]) -> Option<N> {
        self.text(names)?.parse().ok()
    }

    /// Neither 0 nor OFF: a value of a later version that we do not know counts as set.
    pub(super) fn is_set(&self, names: &[&str]) -> bool {
        self.text(names)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("off"))
    }
}
