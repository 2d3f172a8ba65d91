//! How a server reads the bytes of a statement.

/// The circumstances that decide how the bytes of a statement are read.
///
/// It follows the session: its servers' flavour and version, its `sql_mode` and its
/// `character_set_client`. New fields may come; build it with `..Dialect::default()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// The server is MariaDB (otherwise MySQL or a server derived from it).
    pub maria: bool,
    /// Server version as a number: 80408 is 8.4.8, 101119 is 10.11.19. Decides which
    /// `/*!NNNNNN */` comments are code.
    pub version: u32,
    /// `sql_mode` has ANSI_QUOTES: `"` quotes identifiers, not strings.
    pub ansi_quotes: bool,
    /// `sql_mode` has NO_BACKSLASH_ESCAPES: `\` is an ordinary character in strings.
    pub no_backslash_escapes: bool,
    /// `character_set_client` is one in which `\` or a backtick can be the second byte of a
    /// character, see [`Dialect::charset_is_ambiguous`]. Statements in which that could matter are
    /// then never called reads.
    pub escape_ambiguous: bool,
}

impl Default for Dialect {
    /// A MySQL 8.4 server with the default `sql_mode` and character set.
    fn default() -> Self {
        Self {
            maria: false,
            version: 80400,
            ansi_quotes: false,
            no_backslash_escapes: false,
            escape_ambiguous: false,
        }
    }
}

impl Dialect {
    /// The dialect of a server of this flavour and version, with default session settings.
    pub fn of(maria: bool, version: u32) -> Self {
        Self {
            maria,
            version,
            ..Self::default()
        }
    }

    /// Takes over what the value of `sql_mode` says about reading text.
    pub fn with_sql_mode(self, sql_mode: &[u8]) -> Self {
        let mut ansi_quotes = false;
        let mut no_backslash_escapes = false;
        for mode in sql_mode.split(|&byte| byte == b',') {
            let mode = mode.trim_ascii();
            // The combination modes stand for lists that hold ANSI_QUOTES.
            // https://dev.mysql.com/doc/refman/8.4/en/sql-mode.html#sql-mode-combo
            for combined in [
                &b"ANSI_QUOTES"[..],
                b"ANSI",
                b"DB2",
                b"MAXDB",
                b"MSSQL",
                b"ORACLE",
                b"POSTGRESQL",
            ] {
                ansi_quotes |= mode.eq_ignore_ascii_case(combined);
            }
            no_backslash_escapes |= mode.eq_ignore_ascii_case(b"NO_BACKSLASH_ESCAPES");
        }
        Self {
            ansi_quotes,
            no_backslash_escapes,
            ..self
        }
    }

    /// Takes over what the name of a `character_set_client` says about reading text.
    pub fn with_charset(self, name: &[u8]) -> Self {
        Self {
            escape_ambiguous: Self::charset_is_ambiguous(name),
            ..self
        }
    }

    /// Whether bytes below 0x80 can be part of a longer character in this character set, so that
    /// a backslash or backtick byte need not be that character.
    pub fn charset_is_ambiguous(name: &[u8]) -> bool {
        [&b"sjis"[..], b"cp932", b"gbk", b"big5", b"gb18030"]
            .iter()
            .any(|ambiguous| name.eq_ignore_ascii_case(ambiguous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_mode_decides_quotes_and_escapes() {
        let plain = Dialect::default().with_sql_mode(b"ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES");
        assert!(!plain.ansi_quotes && !plain.no_backslash_escapes);
        let ansi = Dialect::default().with_sql_mode(b"ansi,TRADITIONAL");
        assert!(ansi.ansi_quotes && !ansi.no_backslash_escapes);
        let both = Dialect::default().with_sql_mode(b"ANSI_QUOTES, NO_BACKSLASH_ESCAPES");
        assert!(both.ansi_quotes && both.no_backslash_escapes);
        assert!(!both.with_sql_mode(b"").ansi_quotes);
    }

    #[test]
    fn multibyte_sets_with_ascii_trail_bytes_are_ambiguous() {
        assert!(Dialect::default().with_charset(b"GBK").escape_ambiguous);
        assert!(!Dialect::default().with_charset(b"utf8mb4").escape_ambiguous);
        assert!(!Dialect::default().with_charset(b"latin1").escape_ambiguous);
    }
}
