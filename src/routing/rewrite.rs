//! The statement that rules run in place of another.

use regex::bytes::Captures;

use crate::config::Rule;
use crate::sql::{self, Dialect};

/// The longest statement that rules make: one packet has room for it.
const LONGEST: usize = 15 << 20;

/// What the first of the rules that rewrites makes of a statement; `None` if it stays as it is.
///
/// # Errors
/// Which rule cannot do it, and why.
pub fn rewritten<'r>(
    mut rules: impl Iterator<Item = &'r Rule>,
    text: &[u8],
    dialect: Dialect,
) -> Result<Option<Vec<u8>>, String> {
    let Some((rule, template)) = rules.find_map(|rule| Some((rule, rule.then.rewrite.as_deref()?)))
    else {
        return Ok(None);
    };
    let made = replaced(rule, template, text, dialect).and_then(|text| match text.len() {
        ..=LONGEST => Ok(text),
        _ => Err("it would get too long".to_owned()),
    });
    made.map(Some).map_err(|why| {
        format!(
            "rule \"{}\" cannot rewrite this statement: {why}",
            rule.name
        )
    })
}

fn replaced(rule: &Rule, template: &str, text: &[u8], dialect: Dialect) -> Result<Vec<u8>, String> {
    let Some(pattern) = &rule.when.pattern else {
        return filled(template.as_bytes(), text, dialect);
    };
    let replaced = pattern.regex().replace_all(text, |found: &Captures<'_>| {
        let mut out = Vec::new();
        found.expand(template.as_bytes(), &mut out);
        out
    });
    Ok(replaced.into_owned())
}

/// A template with the statement's literals in place of `?1`, `?2`, …
fn filled(template: &[u8], text: &[u8], dialect: Dialect) -> Result<Vec<u8>, String> {
    let Some(literals) = sql::literals(text, dialect) else {
        return Err("its literals cannot be told for certain".to_owned());
    };
    let mut out = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let digits = after
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if *byte != b'?' || digits == 0 {
            out.push(*byte);
            continue;
        }
        let (number, after) = after.split_at(digits);
        rest = after;
        let number = std::str::from_utf8(number)
            .ok()
            .and_then(|number| number.parse::<usize>().ok());
        let literal = number
            .and_then(|number| number.checked_sub(1))
            .and_then(|index| literals.get(index))
            .and_then(|range| text.get(range.clone()));
        match literal {
            Some(literal) => out.extend_from_slice(literal),
            None => {
                return Err(format!(
                    "it asks for literal {}, and there are {}",
                    number.unwrap_or(usize::MAX),
                    literals.len()
                ));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn templates_take_literals() {
        let fill = |template: &str| {
            let text = b"SELECT a FROM t WHERE b = 'it''s' AND c > 7 LIMIT 10";
            let filled = filled(template.as_bytes(), text, Dialect::default());
            filled.map(|text| String::from_utf8(text).unwrap())
        };
        assert_eq!(fill("SELECT ?1, ?3, ?").unwrap(), "SELECT 'it''s', 10, ?");
        assert_eq!(fill("SELECT 1").unwrap(), "SELECT 1");
        assert!(fill("SELECT ?4").unwrap_err().contains("there are 3"));
        assert!(fill("SELECT ?0").is_err());
        assert!(fill("SELECT ?99999999999999999999999").is_err());
    }
}
