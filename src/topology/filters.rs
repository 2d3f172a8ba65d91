//! What a replica leaves out of what its source has.

use std::fmt::{self, Display, Formatter};

/// The filters of one replication connection, or of a source's log. Names are as the server lists them.
///
/// Servers compare names by rules that depend on where they run. What has to be copied is therefore found only under the
/// very same name, and what is left out also under a name that differs in case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filters {
    /// Only these schemas.
    pub do_schemas: Vec<String>,
    /// Not these schemas.
    pub ignore_schemas: Vec<String>,
    /// Only these tables, `schema.table`.
    pub do_tables: Vec<String>,
    /// Not these tables.
    pub ignore_tables: Vec<String>,
    /// Only tables like these.
    pub wild_do_tables: Vec<String>,
    /// Not tables like these.
    pub wild_ignore_tables: Vec<String>,
    /// Something that leaves out, or renames, what names of tables do not tell: its name and value.
    pub other: Vec<(&'static str, String)>,
}

impl Filters {
    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.lists().all(|(_, list)| list.is_empty()) && self.other.is_empty()
    }

    /// Whether a table is surely copied
    /// (<https://dev.mysql.com/doc/refman/8.4/en/replication-rules.html>).
    pub fn copy(&self, schema: &str, table: &str) -> bool {
        // Other letters are in the client's character set, and folded by the server's rules.
        if !self.other.is_empty() || !schema.is_ascii() || !table.is_ascii() {
            return self.is_empty();
        }
        let with_case = |name: &str, list: &[String]| list.iter().any(|listed| listed == name);
        let in_any_case = |name: &str, list: &[String]| {
            list.iter().any(|listed| listed.eq_ignore_ascii_case(name))
        };
        let of_schema = if self.do_schemas.is_empty() {
            !in_any_case(schema, &self.ignore_schemas)
        } else {
            with_case(schema, &self.do_schemas)
        };
        if !of_schema {
            return false;
        }
        let name = format!("{schema}.{table}");
        let like = |list: &[String], case| {
            let mut patterns = list.iter();
            patterns.any(|pattern| fits(pattern.as_bytes(), name.as_bytes(), case))
        };
        if with_case(&name, &self.do_tables) {
            true
        } else if in_any_case(&name, &self.ignore_tables) {
            false
        } else if like(&self.wild_do_tables, Case::Counts) {
            true
        } else if like(&self.wild_ignore_tables, Case::Ignored) {
            false
        } else {
            self.do_tables.is_empty() && self.wild_do_tables.is_empty()
        }
    }

    fn lists(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        [
            ("do_db", &*self.do_schemas),
            ("ignore_db", &*self.ignore_schemas),
            ("do_table", &*self.do_tables),
            ("ignore_table", &*self.ignore_tables),
            ("wild_do_table", &*self.wild_do_tables),
            ("wild_ignore_table", &*self.wild_ignore_tables),
        ]
        .into_iter()
    }
}

/// As the servers call them.
impl Display for Filters {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let lists = self.lists().filter(|(_, list)| !list.is_empty());
        let lists = lists.map(|(name, list)| format!("{name}={}", list.join(",")));
        let other = self.other.iter();
        let other = other.map(|(name, value)| format!("{name}={value}"));
        f.write_str(&lists.chain(other).collect::<Vec<_>>().join(" "))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Case {
    Counts,
    Ignored,
}

/// LIKE, over the whole of schema and table: `%` is anything, `_` one character, and `\` takes that from the next one.
fn fits(pattern: &[u8], name: &[u8], case: Case) -> bool {
    let (mut pattern, mut name) = (pattern, name);
    // Where to go on when what follows the last `%` does not fit: only the last one ever has to give.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        let fitting = match (pattern, name) {
            ([b'%', rest @ ..], _) => {
                retry = Some((rest, name));
                pattern = rest;
                continue;
            }
            ([], []) => return true,
            ([b'\\', wanted, rest @ ..], [found, after @ ..]) => {
                same(*wanted, *found, case).then_some((rest, after))
            }
            ([b'_', rest @ ..], [_, after @ ..]) => Some((rest, after)),
            ([wanted, rest @ ..], [found, after @ ..]) => {
                same(*wanted, *found, case).then_some((rest, after))
            }
            (_, []) | ([], _) => None,
        };
        match (fitting, retry) {
            (Some(rest), _) => (pattern, name) = rest,
            (None, Some((behind, [_, later @ ..]))) => {
                (pattern, name) = (behind, later);
                retry = Some((behind, later));
            }
            (None, _) => return false,
        }
    }
}

fn same(wanted: u8, found: u8, case: Case) -> bool {
    wanted == found || case == Case::Ignored && wanted.eq_ignore_ascii_case(&found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        text.split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn patterns_are_the_servers() {
        for (pattern, name, expected) in [
            ("shop.%", "shop.orders", true),
            ("shop.%", "shop2.orders", false),
            ("shop%.%", "shop2.orders", true),
            ("shop_.%", "shop2.orders", true),
            ("shop\\_.%", "shop2.orders", false),
            ("shop\\_.%", "shop_.orders", true),
            ("%.tmp\\%", "a.tmp%", true),
            ("%.tmp\\%", "a.tmpx", false),
            ("%.a%b%c", "x.aabbcc", true),
            ("%.a%b%c", "x.aabbcd", false),
            ("%", "", true),
            ("", "", true),
            ("", "a", false),
            ("_", "", false),
            ("%%%", "a.b", true),
            ("%\\", "a\\", true),
            ("Shop.%", "shop.t", false),
        ] {
            let found = fits(pattern.as_bytes(), name.as_bytes(), Case::Counts);
            assert_eq!(found, expected, "{pattern} {name}");
        }
        assert!(fits(b"Shop.%", b"shOP.t", Case::Ignored));
        // Each `%` would be tried at each place.
        let name = "a".repeat(5_000);
        assert!(!fits(
            "%a".repeat(500).as_bytes(),
            format!("{name}b").as_bytes(),
            Case::Ignored
        ));
    }

    #[test]
    fn only_what_is_surely_copied_counts() {
        type Set = fn(&mut Filters, Vec<String>);
        let sets: [Set; 6] = [
            |filters, list| filters.do_schemas = list,
            |filters, list| filters.ignore_schemas = list,
            |filters, list| filters.do_tables = list,
            |filters, list| filters.ignore_tables = list,
            |filters, list| filters.wild_do_tables = list,
            |filters, list| filters.wild_ignore_tables = list,
        ];
        // do_db, ignore_db, do_table, ignore_table, wild_do_table, wild_ignore_table; the table; is it copied?
        for (lists, table, expected) in [
            (["", "", "", "", "", ""], "shop.t", true),
            (["shop,b", "", "", "", "", ""], "shop.t", true),
            (["shop", "", "", "", "", ""], "Shop.t", false),
            (["shop", "", "", "", "", ""], "other.t", false),
            (["", "shop", "", "", "", ""], "other.t", true),
            (["", "shop", "", "", "", ""], "SHOP.t", false),
            // The list of those to copy counts before that of those to leave out.
            (["shop", "shop", "", "", "", ""], "shop.t", true),
            (["", "", "shop.t", "", "", ""], "shop.t", true),
            (["", "", "shop.t", "", "", ""], "shop.T", false),
            (["", "", "shop.t", "", "", ""], "shop.u", false),
            (["", "", "", "shop.t", "", ""], "shop.t", false),
            (["", "", "", "shop.t", "", ""], "shop.u", true),
            (["", "", "shop.t", "shop.t", "", ""], "shop.t", true),
            (["", "", "", "", "shop.%", ""], "shop.t", true),
            (["", "", "", "", "shop.%", ""], "a.t", false),
            (["", "", "", "", "", "%.log\\_%"], "shop.LOG_1", false),
            (["", "", "", "", "", "%.log\\_%"], "shop.logs", true),
            (["", "", "shop.t", "", "", "shop.%"], "shop.t", true),
            (["", "", "", "shop.t", "shop.%", ""], "shop.t", false),
            // Schemas count first.
            (["", "shop", "shop.t", "", "", ""], "shop.t", false),
            (["", "shop", "", "", "", ""], "caf\u{e9}.t", false),
        ] {
            let mut filters = Filters::default();
            for (set, names) in sets.iter().zip(lists) {
                set(&mut filters, list(names));
            }
            let (schema, name) = table.split_once('.').unwrap_or_default();
            assert_eq!(filters.copy(schema, name), expected, "{lists:?} {table}");
        }
        let other = Filters {
            other: vec![("rewrite_db", "(a,b)".to_owned())],
            ..Filters::default()
        };
        assert!(!other.copy("shop", "t") && !other.is_empty());
        assert_eq!(other.to_string(), "rewrite_db=(a,b)");
    }
}
