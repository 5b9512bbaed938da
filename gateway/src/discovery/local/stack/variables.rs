//! `${NAME}` in a stack file, filled in as faas-cli does, but after the YAML is read: a value is text, whatever is in it.
//!
//! Each expression becomes a marker before the YAML is parsed, and the marker becomes the value in every scalar that was
//! read. So a quote, a newline or a `: ` in a value cannot change the structure, and expressions in comments do nothing.
//! A default is part of the file, and is put into the YAML as it stands there.

use std::collections::BTreeSet;

/// The bounds of a marker: noncharacters of Unicode, which no text has.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';
/// The longest expression, and how deep one may be in the default of another.
const MAX_EXPRESSION: usize = 4096;
const MAX_DEPTH: usize = 16;

/// The text of a stack file with a marker for each expression.
pub(super) struct Template {
    /// The YAML.
    pub(super) yaml: String,
    expressions: Vec<Expression>,
}

struct Expression {
    line: usize,
    source: String,
    value: Value,
}

enum Value {
    Text(String),
    /// No variable of that name, and no default.
    Unset,
    /// A form that is not known.
    Unknown,
}

impl Template {
    /// Finds the expressions of a text; `env` has the variables.
    ///
    /// # Errors
    /// A text with characters that markers are made of.
    pub(super) fn new(text: &str, env: &impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let is_marker = |line: &str| line.contains([OPEN, CLOSE]);
        if let Some(index) = text.lines().position(is_marker) {
            let line = index + 1;
            return Err(format!("line {line}: a character that is no text"));
        }
        let mut template = Self {
            yaml: String::with_capacity(text.len()),
            expressions: Vec::new(),
        };
        for (index, line) in text.split_inclusive('\n').enumerate() {
            template.expand(line, index + 1, 0, env);
        }
        Ok(template)
    }

    /// Adds a line, or a part of it, with its expressions replaced.
    fn expand(
        &mut self,
        text: &str,
        line: usize,
        depth: usize,
        env: &impl Fn(&str) -> Option<String>,
    ) {
        let mut rest = text;
        while let Some(start) = rest.find('$') {
            self.yaml.push_str(&rest[..start]);
            rest = &rest[start..];
            if let Some(after) = rest.strip_prefix("$$") {
                self.yaml.push('$');
                rest = after;
            } else if rest.starts_with("${") {
                rest = self.expression(rest, line, depth, env);
            } else {
                self.yaml.push('$');
                rest = &rest[1..];
            }
        }
        self.yaml.push_str(rest);
    }

    /// Replaces the expression at the start of a text, and returns what follows it.
    fn expression<'a>(
        &mut self,
        text: &'a str,
        line: usize,
        depth: usize,
        env: &impl Fn(&str) -> Option<String>,
    ) -> &'a str {
        let Some(end) = end_of_expression(text) else {
            let shown: String = text.trim_end().chars().take(40).collect();
            self.mark(line, &shown, Value::Unknown);
            return &text[2..];
        };
        let (source, rest) = text.split_at(end);
        let inside = &source[2..end - 1];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, form) = inside.split_at(inside.find(|c| !is_name(c)).unwrap_or(inside.len()));
        let set = env(name);
        let is_filled = set.as_ref().is_some_and(|value| !value.is_empty());
        // The longer operators first.
        let default = [(":-", is_filled), (":=", is_filled), ("=", is_filled)]
            .into_iter()
            .chain([("-", set.is_some())])
            .find_map(|(operator, is_used)| Some((form.strip_prefix(operator)?, is_used)));
        let value = match (default, set) {
            _ if name.is_empty() || depth >= MAX_DEPTH => Value::Unknown,
            (Some((default, false)), _) => {
                self.expand(default, line, depth + 1, env);
                return rest;
            }
            (Some(_), Some(value)) => Value::Text(value),
            (None, _) if !form.is_empty() => Value::Unknown,
            (None, Some(value)) => Value::Text(value),
            (_, None) => Value::Unset,
        };
        self.mark(line, source, value);
        rest
    }

    fn mark(&mut self, line: usize, source: &str, value: Value) {
        let marker = format!("{OPEN}{}{CLOSE}", self.expressions.len());
        self.yaml.push_str(&marker);
        self.expressions.push(Expression {
            line,
            source: source.to_owned(),
            value,
        });
    }

    /// A scalar that was read, with the values in the place of the markers.
    pub(super) fn fill(&self, text: &str) -> String {
        self.replace(text, |expression| match &expression.value {
            Value::Text(value) => value,
            Value::Unset | Value::Unknown => "",
        })
    }

    /// A text as it stands in the file, for messages.
    pub(super) fn shown(&self, text: &str) -> String {
        self.replace(text, |expression| &expression.source)
    }

    fn replace<'a>(&'a self, text: &str, by: impl Fn(&'a Expression) -> &'a str) -> String {
        let mut pieces = text.split(OPEN);
        let mut filled = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (index, rest) = piece.split_once(CLOSE).unwrap_or(("", piece));
            let expression = index
                .parse()
                .ok()
                .and_then(|index: usize| self.expressions.get(index));
            filled.push_str(expression.map_or("", &by));
            filled.push_str(rest);
        }
        filled
    }

    /// What is to be said of the expressions in these scalars, the only ones that are no comments: warnings, a line for each
    /// variable that is not set, and mistakes.
    pub(super) fn remarks<'a>(
        &self,
        scalars: impl Iterator<Item = &'a str>,
    ) -> (Vec<String>, Vec<String>) {
        let used: BTreeSet<usize> = scalars
            .flat_map(|text| text.split(OPEN).skip(1))
            .filter_map(|piece| piece.split_once(CLOSE)?.0.parse().ok())
            .collect();
        let (mut warnings, mut mistakes) = (Vec::new(), Vec::new());
        let mut unset = BTreeSet::new();
        for expression in used.iter().filter_map(|index| self.expressions.get(*index)) {
            let Expression {
                line,
                source,
                value,
            } = expression;
            match value {
                Value::Text(_) => {}
                Value::Unset if unset.insert(source) => warnings.push(format!(
                    "line {line}: the variable of {source} is not set, and the text is empty there"
                )),
                Value::Unset => {}
                Value::Unknown => mistakes.push(format!(
                    "line {line}: {source} is a form that is not known: write ${{NAME}}, ${{NAME:-default}}, ${{NAME-default}} or ${{NAME:=default}}, and $${{ for the text ${{"
                )),
            }
        }
        (warnings, mistakes)
    }
}

/// The length of the expression at the start of a text, if it ends in that line.
fn end_of_expression(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut depth = 0;
    for index in 0..bytes.len().min(MAX_EXPRESSION) {
        match bytes[index] {
            b'{' if index > 0 && bytes[index - 1] == b'$' => depth += 1,
            b'}' if depth == 1 => return Some(index + 1),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        let env = |name: &str| match name {
            "WHO" => Some("me".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        Template::new(text, &env).unwrap()
    }

    fn filled(text: &str) -> String {
        let template = template(text);
        template.fill(&template.yaml)
    }

    #[test]
    fn the_known_forms_are_filled_in() {
        for (text, value) in [
            (
                "awk '{print $1}' ${WHO}${NONE}${NONE:-x}",
                "awk '{print $1}' mex",
            ),
            ("${EMPTY:-x}${EMPTY:=y}${EMPTY=z}${EMPTY-w}", "xyz"),
            ("${NONE-a}${NONE:=b}${NONE=c}${WHO-d}${WHO:-e}", "abcmeme"),
            (
                "${NONE:-http://h:1/${WHO}/${NONE:-deep}}!",
                "http://h:1/me/deep!",
            ),
            ("$$ $${WHO} $$$${WHO} cost: 5$", "$ ${WHO} $${WHO} cost: 5$"),
            ("${NONE:-}|${NONE:-{}}|a\\\\b", "|{}|a\\\\b"),
        ] {
            assert_eq!(filled(text), value, "{text}");
        }
    }

    #[test]
    fn unknown_forms_are_mistakes_with_their_line() {
        for form in [
            "${WHO/x/y}",
            "${WHO^^}",
            "${#WHO}",
            "${WHO:1:2}",
            "${WHO:?no}",
            "${WHO:+x}",
            "${}",
            "${a.b}",
            "${open",
            "${ WHO }",
        ] {
            let template = template(&format!("a: b\nc: {form}\n"));
            let (_, mistakes) = template.remarks(template.yaml.lines());
            assert_eq!(mistakes.len(), 1, "{form}");
            assert!(
                mistakes[0].starts_with(&format!("line 2: {form} is")),
                "{mistakes:?}"
            );
        }
        let deep = template(&("${A:-".repeat(40) + &"}".repeat(40)));
        assert_eq!(deep.remarks(deep.yaml.lines()).1.len(), 1);
        assert!(Template::new("a: \u{fdd0}0\u{fdd1}", &|_| None).is_err());
    }

    #[test]
    fn an_unset_variable_is_named_once_with_its_line() {
        let template = template("a: ${NONE}\nb: ${NONE} ${EMPTY}\nc: ${ELSE}\n");
        let (warnings, _) = template.remarks(template.yaml.lines());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[0].starts_with("line 1: the variable of ${NONE} is not set"));
        assert!(warnings[1].starts_with("line 3: "));
    }
}
