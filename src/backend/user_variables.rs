//! The user variables of a session that are known, and those that a connection has.

use std::collections::BTreeMap;

use crate::sql::Constant;

/// User variables with values that can be given to any connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct UserVariables {
    by_name: BTreeMap<Box<[u8]>, Value>,
}

/// A variable that is NULL still has the type of the value that it had before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Value {
    /// The last one that was not NULL.
    constant: Option<Constant>,
    is_null: bool,
}

impl UserVariables {
    /// Most variables of a session.
    const LIMIT: usize = 64;
    /// Most bytes of their names and values.
    const LIMIT_SIZE: usize = 8 << 10;

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(super) fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    /// Gives a variable a value; false if there would be too much of them.
    pub(super) fn set(&mut self, name: &[u8], constant: &Constant) -> bool {
        match (self.by_name.get_mut(name), constant) {
            (Some(value), Constant::Null) => value.is_null = true,
            (_, constant) => {
                let is_null = *constant == Constant::Null;
                let constant = (!is_null).then(|| constant.clone());
                self.by_name
                    .insert(name.into(), Value { constant, is_null });
            }
        }
        self.by_name.len() <= Self::LIMIT && self.size() <= Self::LIMIT_SIZE
    }

    fn size(&self) -> usize {
        let sizes = self.by_name.iter().map(|(name, value)| {
            let constant = value.constant.as_ref();
            name.len() + constant.map_or(0, |constant| text_of(constant).len())
        });
        sizes.sum()
    }

    /// Whether a connection with these can be given those that are `wanted`. A variable that was set once is never again what it
    /// was before.
    pub(super) fn can_become(&self, wanted: &Self) -> bool {
        self.by_name.iter().all(|(name, value)| {
            let wanted = wanted.by_name.get(name);
            wanted.is_some_and(|wanted| wanted.constant.is_some() || value.constant.is_none())
        })
    }

    /// The statement that gives them to a connection that has `actual`; `None` if none is needed.
    pub(super) fn statement_after(&self, actual: &Self) -> Option<Vec<u8>> {
        let mut sql = Vec::new();
        let mut assign = |name: &[u8], value: &[u8]| {
            sql.extend_from_slice(if sql.is_empty() { b"SET @`" } else { b", @`" });
            sql.extend_from_slice(name);
            sql.extend_from_slice(b"`=");
            sql.extend_from_slice(value);
        };
        for (name, value) in &self.by_name {
            if actual.by_name.get(name) == Some(value) {
                continue;
            }
            if let Some(constant) = &value.constant {
                assign(name, text_of(constant));
            }
            if value.is_null {
                assign(name, text_of(&Constant::Null));
            }
        }
        (!sql.is_empty()).then_some(sql)
    }
}

fn text_of(constant: &Constant) -> &[u8] {
    match constant {
        Constant::Null => b"NULL",
        Constant::Value(text) => text,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plain(text: &str) -> Constant {
        Constant::Value(text.as_bytes().into())
    }

    fn of(values: &[(&str, Constant)]) -> UserVariables {
        let mut variables = UserVariables::default();
        for (name, constant) in values {
            assert!(variables.set(name.as_bytes(), constant));
        }
        variables
    }

    fn statement(actual: &UserVariables, wanted: &UserVariables) -> Option<String> {
        let statement = wanted.statement_after(actual)?;
        Some(String::from_utf8(statement).unwrap())
    }

    #[test]
    fn only_what_differs_is_set() {
        let text = Constant::Value((*b"'x'").into());
        let actual = of(&[("a", plain("1")), ("b", plain("2"))]);
        let wanted = of(&[("a", plain("1")), ("b", text), ("c", plain("-3"))]);
        assert_eq!(
            statement(&actual, &wanted).as_deref(),
            Some("SET @`b`='x', @`c`=-3")
        );
        assert_eq!(statement(&wanted, &wanted), None);
    }

    #[test]
    fn null_keeps_the_type_that_was_there() {
        let typed = of(&[("a", plain("1")), ("a", Constant::Null)]);
        let untyped = of(&[("a", Constant::Null)]);
        let none = UserVariables::default();
        assert_eq!(
            statement(&none, &typed).as_deref(),
            Some("SET @`a`=1, @`a`=NULL")
        );
        assert_eq!(statement(&none, &untyped).as_deref(), Some("SET @`a`=NULL"));
        assert!(untyped.can_become(&typed) && none.can_become(&untyped));
        assert!(!typed.can_become(&untyped) && !untyped.can_become(&none));
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut variables = UserVariables::default();
        for number in 0..UserVariables::LIMIT {
            assert!(variables.set(number.to_string().as_bytes(), &plain("1")));
        }
        assert!(variables.set(b"0", &plain("2")));
        assert!(!variables.clone().set(b"one more", &plain("1")));
        let long = "1".repeat(UserVariables::LIMIT_SIZE);
        assert!(!variables.set(b"0", &plain(&long)));
    }
}
