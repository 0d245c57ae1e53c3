//! From tokens to a query: recursive descent, bounded in depth and length, as queries come from strangers.

use super::ast::{Field, FieldType, Operator, Query, QueryError, Value};
use super::lexer::{Token, tokens};

/// Bytes of the longest query.
pub const MAX_LENGTH: usize = 4096;
/// Nested parentheses and `not`s.
pub const MAX_DEPTH: usize = 32;

impl Query {
    /// Reads a query; an empty text is [`Query::ALL`].
    ///
    /// # Errors
    /// The text is no query over these fields; the error has the position.
    pub fn parse(text: &str, fields: &'static [Field]) -> Result<Self, QueryError> {
        parse(text, fields)
    }
}

fn parse(text: &str, fields: &'static [Field]) -> Result<Query, QueryError> {
    if text.len() > MAX_LENGTH {
        return Err(QueryError::new(format!("the query is longer than {MAX_LENGTH} bytes"), "", 0));
    }
    let mut parser = Parser { text, fields, tokens: tokens(text)?, next: 0, depth: 0 };
    if parser.peek() == &Token::End {
        return Ok(Query::ALL);
    }
    let query = parser.query()?;
    match parser.peek() {
        Token::End => Ok(query),
        _ => Err(parser.error("expected `and`, `or` or the end of the query")),
    }
}

struct Parser<'a> {
    text: &'a str,
    fields: &'static [Field],
    tokens: Vec<(Token, usize)>,
    next: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].0
    }

    fn position(&self) -> usize {
        self.tokens[self.next].1
    }

    /// The next token; the end stays.
    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    fn error(&self, message: impl Into<String>) -> QueryError {
        QueryError::new(message, self.text, self.position())
    }

    fn keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        if found {
            self.take();
        }
        found
    }

    fn expect(&mut self, token: &Token, what: &str) -> Result<(), QueryError> {
        if self.peek() != token {
            return Err(self.error(format!("expected {what}")));
        }
        self.take();
        Ok(())
    }

    fn query(&mut self) -> Result<Query, QueryError> {
        let mut any = vec![self.term()?];
        while self.keyword("or") {
            any.push(self.term()?);
        }
        Ok(single_or(any, Query::Or))
    }

    fn term(&mut self) -> Result<Query, QueryError> {
        let mut all = vec![self.factor()?];
        loop {
            if self.peek() == &Token::Comma {
                self.take();
            } else if !self.keyword("and") {
                return Ok(single_or(all, Query::And));
            }
            all.push(self.factor()?);
        }
    }

    fn factor(&mut self) -> Result<Query, QueryError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(format!("the query is nested more than {MAX_DEPTH} levels deep")));
        }
        let query = if self.keyword("not") {
            Query::Not(Box::new(self.factor()?))
        } else if self.peek() == &Token::Open {
            self.take();
            let query = self.query()?;
            self.expect(&Token::Close, "`)`")?;
            query
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(query)
    }

    fn condition(&mut self) -> Result<Query, QueryError> {
        let field = self.field()?;
        if self.keyword("is") {
            let negated = self.keyword("not");
            if !self.keyword("null") {
                return Err(self.error("expected `null`"));
            }
            return Ok(negate_if(negated, Query::IsNull(field)));
        }
        let negated = self.keyword("not");
        if self.keyword("in") {
            self.expect(&Token::Open, "`(`")?;
            let mut values = vec![self.value(field)?];
            while self.peek() == &Token::Comma {
                self.take();
                values.push(self.value(field)?);
            }
            self.expect(&Token::Close, "`,` or `)`")?;
            return Ok(negate_if(negated, Query::In(field, values)));
        }
        if self.keyword("contains") {
            if field.kind != FieldType::Text {
                return Err(self.error(format!("`{}` is not a text: `contains` does not apply", field.name)));
            }
            let Value::Text(text) = self.value(field)? else { return Err(self.error("expected a text")) };
            return Ok(negate_if(negated, Query::Contains(field, text)));
        }
        if negated {
            return Err(self.error("expected `in` or `contains`"));
        }
        let Token::Operator(operator) = *self.peek() else {
            return match field.kind {
                FieldType::Flag => Ok(Query::Compare(field, Operator::Equal, Value::Flag(true))),
                _ => Err(self.error(format!("expected an operator after `{}`: = != < <= > >=", field.name))),
            };
        };
        let ordered = !matches!(operator, Operator::Equal | Operator::NotEqual);
        if ordered && matches!(field.kind, FieldType::Flag | FieldType::Choice(_)) {
            return Err(self.error(format!("`{}` has no order: expected = or !=", field.name)));
        }
        self.take();
        Ok(Query::Compare(field, operator, self.value(field)?))
    }

    fn field(&mut self) -> Result<&'static Field, QueryError> {
        let Token::Word(name) = self.peek() else { return Err(self.error("expected the name of a field")) };
        let name = name.clone();
        if let Some(field) = self.fields.iter().find(|field| field.name == name) {
            self.take();
            return Ok(field);
        }
        let nearest = self.fields.iter().map(|field| (distance(field.name, &name), field.name)).min();
        let hint = match nearest {
            Some((distance, nearest)) if distance <= 2 => format!("did you mean `{nearest}`?"),
            _ => {
                let names: Vec<&str> = self.fields.iter().map(|field| field.name).collect();
                format!("the fields are {}", names.join(", "))
            }
        };
        Err(self.error(format!("there is no field `{name}`: {hint}")))
    }

    fn value(&mut self, field: &'static Field) -> Result<Value, QueryError> {
        let token = self.peek().clone();
        let value = match (field.kind, token) {
            (FieldType::Number, Token::Number(number, _)) => Value::Number(number),
            (FieldType::Number, _) => {
                return Err(self.error(format!("`{}` is a number: expected a number", field.name)));
            }
            (FieldType::Flag, Token::Word(word)) if ["true", "false"].contains(&word.as_str()) => {
                Value::Flag(word == "true")
            }
            (FieldType::Flag, _) => return Err(self.error(format!("`{}` is true or false", field.name))),
            (_, Token::Text(text) | Token::Word(text) | Token::Number(_, text)) => Value::Text(text),
            _ => return Err(self.error("expected a value")),
        };
        if let (FieldType::Choice(words), Value::Text(text)) = (field.kind, &value)
            && !words.contains(&text.as_str())
        {
            return Err(self.error(format!("`{}` is one of {}", field.name, words.join(", "))));
        }
        self.take();
        Ok(value)
    }
}

fn single_or(mut queries: Vec<Query>, many: fn(Vec<Query>) -> Query) -> Query {
    if queries.len() == 1 { queries.remove(0) } else { many(queries) }
}

fn negate_if(negated: bool, query: Query) -> Query {
    if negated { Query::Not(Box::new(query)) } else { query }
}

/// Edits from one name to the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    static FIELDS: &[Field] = &[
        Field { name: "p_ok", kind: FieldType::Number, meaning: "" },
        Field { name: "size", kind: FieldType::Number, meaning: "" },
        Field { name: "label", kind: FieldType::Text, meaning: "" },
        Field { name: "outcome", kind: FieldType::Choice(&["gone", "failed"]), meaning: "" },
        Field { name: "ok", kind: FieldType::Flag, meaning: "" },
    ];

    fn shown(text: &str) -> String {
        Query::parse(text, FIELDS).unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn queries_are_read_and_printed() {
        for (text, printed) in [
            ("", ""),
            ("p_ok>=0.9 and size >= 512 and label='a' and not ok", "p_ok>=0.9 and size>=512 and label='a' and not ok"),
            ("ok", "ok"),
            ("ok=false", "ok=false"),
            ("size=1 or size=2 and ok", "size=1 or (size=2 and ok)"),
            ("(size=1 or size=2) and ok", "(size=1 or size=2) and ok"),
            ("not (size=1 or ok)", "not (size=1 or ok)"),
            ("outcome=gone,label=a.b-c", "outcome='gone' and label='a.b-c'"),
            ("label='O''Neill' OR label=\"a'b\"", "label='O''Neill' or label='a''b'"),
            ("label=O'Neill, label contains d'Arc", "label='O''Neill' and label contains 'd''Arc'"),
            ("label in ('a', b) AND label not in (c)", "label in ('a', 'b') and not label in ('c')"),
            ("label contains 無 and label not contains x", "label contains '無' and not label contains 'x'"),
            ("label is null or label is not null", "label is null or not label is null"),
            ("p_ok<-1.5e2", "p_ok<-150"),
            ("label=404", "label='404'"),
        ] {
            assert_eq!(shown(text), printed, "{text}");
            assert_eq!(shown(printed), printed, "what is printed reads back");
        }
    }

    #[test]
    fn errors_have_a_position_and_a_hint() {
        for (text, position, message) in [
            ("sise>=512", 0, "there is no field `sise`: did you mean `size`?"),
            ("moon=1", 0, "there is no field `moon`: the fields are p_ok, size, label, outcome, ok"),
            ("size>=big", 6, "`size` is a number"),
            ("size", 4, "expected an operator after `size`"),
            ("size>=1 ok", 8, "expected `and`, `or` or the end"),
            ("(size>=1", 8, "expected `)`"),
            ("label='a", 6, "the quote is not closed: ' within a text is doubled"),
            ("outcome=lost", 8, "`outcome` is one of gone, failed"),
            ("outcome<gone", 7, "`outcome` has no order"),
            ("size contains 1", 14, "`size` is not a text"),
            ("label is 1", 9, "expected `null`"),
            ("ok=1", 3, "`ok` is true or false"),
            ("size ; drop table faces", 5, "unexpected character ';'"),
            ("size=1 and", 10, "expected the name of a field"),
            ("label not 1", 10, "expected `in` or `contains`"),
            ("size!1", 4, "expected one of"),
            ("size=nan", 5, "`size` is a number"),
        ] {
            let error = Query::parse(text, FIELDS).unwrap_err();
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
            let caret = error.to_string().lines().last().unwrap().chars().count() - "  ^".len();
            assert_eq!(caret, text[..position].chars().count(), "{error}");
        }
    }

    #[test]
    fn hostile_queries_are_bounded() {
        let deep = format!("{}size=1{}", "(".repeat(MAX_DEPTH), ")".repeat(MAX_DEPTH));
        assert!(Query::parse(&deep, FIELDS).unwrap_err().message.contains("levels deep"));
        assert!(Query::parse(&"not ".repeat(1000), FIELDS).unwrap_err().message.contains("levels deep"));
        assert!(Query::parse(&" ".repeat(MAX_LENGTH + 1), FIELDS).unwrap_err().message.contains("longer than"));
        let many = vec!["ok"; 600].join(" or ");
        assert!(Query::parse(&many, FIELDS).is_ok(), "siblings do not nest");
        let error = Query::parse("\u{1b}[2J", FIELDS).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "control characters do not reach the terminal: {error:?}");
    }
}
