//! The tokens of an SQL script, split as psql and the mysql client split them.

use memchr::{memchr, memchr2, memmem};

use super::error::SourceError;
use super::stream::Stream;

/// The rules for strings, names and comments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL, SQLite and others that follow the SQL standard.
    Standard,
    MySql,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A bare word or number, as written.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A string. Its content is not kept.
    Text,
    Symbol(u8),
    /// The end of the dump.
    End,
}

impl Token {
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// Limit for a quoted name, in bytes. The databases allow about 64 characters.
const MAX_NAME: usize = 4096;

pub struct Lexer<'s> {
    pub stream: Stream<'s>,
    pub dialect: Dialect,
    /// Whether a backslash in a plain string is an escape.
    pub backslashes: bool,
    /// Dump headers seen minus footers seen. A truncated dump lacks its footer.
    open_dumps: i64,
    peeked: Option<Token>,
}

impl<'s> Lexer<'s> {
    pub fn new(stream: Stream<'s>, dialect: Dialect) -> Self {
        Self { stream, dialect, backslashes: dialect == Dialect::MySql, open_dumps: 0, peeked: None }
    }

    /// Whether every dump header was followed by its footer.
    pub fn is_complete(&self) -> bool {
        self.open_dumps <= 0
    }

    pub fn peek(&mut self) -> Result<&Token, SourceError> {
        let token = match self.peeked.take() {
            Some(token) => token,
            None => self.read_token()?,
        };
        Ok(self.peeked.insert(token))
    }

    pub fn token(&mut self) -> Result<Token, SourceError> {
        match self.peeked.take() {
            Some(token) => Ok(token),
            None => self.read_token(),
        }
    }

    /// Consumes the next token if it is this symbol.
    pub fn take_symbol(&mut self, symbol: u8) -> Result<bool, SourceError> {
        let found = *self.peek()? == Token::Symbol(symbol);
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    /// Consumes the next token if it is this word.
    pub fn take_word(&mut self, word: &str) -> Result<bool, SourceError> {
        let found = self.peek()?.is(word);
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    fn read_token(&mut self) -> Result<Token, SourceError> {
        loop {
            self.skip_blank()?;
            let mysql = self.dialect == Dialect::MySql;
            let window = self.stream.fill(2)?;
            let Some(&byte) = window.first() else { return Ok(Token::End) };
            let next = window.get(1).copied();
            match byte {
                b'\'' => {
                    self.stream.consume(1);
                    self.quoted(b'\'', self.backslashes, None)?;
                    return Ok(Token::Text);
                }
                b'"' | b'`' if byte == b'"' || mysql => {
                    self.stream.consume(1);
                    let mut name = Vec::new();
                    self.quoted(byte, mysql && byte == b'"', Some(&mut name))?;
                    return Ok(Token::Name(String::from_utf8_lossy(&name).into_owned()));
                }
                // The end of a conditional comment. Its content is read as SQL.
                b'*' if mysql && next == Some(b'/') => self.stream.consume(2),
                b'$' if !mysql && self.dollar_quoted()? => return Ok(Token::Text),
                _ if is_word(byte) => return self.word(),
                _ => {
                    self.stream.consume(1);
                    return Ok(Token::Symbol(byte));
                }
            }
        }
    }

    fn word(&mut self) -> Result<Token, SourceError> {
        let length = loop {
            let window = self.stream.window();
            if let Some(end) = window.iter().position(|byte| !is_word(*byte) && *byte != b'$') {
                break end;
            }
            if !self.stream.grow()? {
                break self.stream.window().len();
            }
        };
        let word = String::from_utf8_lossy(&self.stream.window()[..length]).into_owned();
        self.stream.consume(length);
        let escaped = self.dialect == Dialect::Standard && word.eq_ignore_ascii_case("e");
        if escaped && self.stream.fill(1)?.first() == Some(&b'\'') {
            self.stream.consume(1);
            self.quoted(b'\'', true, None)?;
            return Ok(Token::Text);
        }
        Ok(Token::Word(word))
    }

    /// Skips white space and comments, and records dump headers and footers.
    pub fn skip_blank(&mut self) -> Result<(), SourceError> {
        debug_assert!(self.peeked.is_none());
        let mysql = self.dialect == Dialect::MySql;
        loop {
            let window = self.stream.fill(3)?;
            let byte = |i: usize| window.get(i).copied();
            match (byte(0), byte(1)) {
                (Some(b' ' | b'\t' | b'\r' | b'\n' | 0x0c), _) => {
                    let blank = window.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(window.len());
                    self.stream.consume(blank);
                }
                (Some(b'-'), Some(b'-')) if !mysql || byte(2).is_none_or(|byte| byte <= b' ') => self.line_comment()?,
                (Some(b'#'), _) if mysql => self.line_comment()?,
                (Some(b'/'), Some(b'*')) => self.comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn line_comment(&mut self) -> Result<(), SourceError> {
        let start = self.stream.fill(64)?;
        let line = &start[..memchr(b'\n', start).unwrap_or(start.len())];
        self.open_dumps += match line.trim_ascii_end() {
            b"-- PostgreSQL database dump complete" | b"-- PostgreSQL database cluster dump complete" => -1,
            b"-- PostgreSQL database dump" | b"-- PostgreSQL database cluster dump" => 1,
            line if line.starts_with(b"-- MySQL dump ") || line.starts_with(b"-- MariaDB dump ") => 1,
            line if line.starts_with(b"-- Dump completed") => -1,
            _ => 0,
        };
        self.skip_line()
    }

    /// Skips to the start of the next line.
    pub fn skip_line(&mut self) -> Result<(), SourceError> {
        loop {
            let window = self.stream.fill(1)?;
            let (length, found) = (window.len(), memchr(b'\n', window));
            self.stream.consume(found.map_or(length, |end| end + 1));
            if found.is_some() || length == 0 {
                return Ok(());
            }
        }
    }

    /// Returns the rest of the line, at most [`MAX_NAME`] bytes.
    pub fn rest_of_line(&mut self) -> Result<String, SourceError> {
        debug_assert!(self.peeked.is_none());
        let window = self.stream.fill(MAX_NAME)?;
        let line = &window[..memchr(b'\n', window).unwrap_or(window.len()).min(MAX_NAME)];
        let line = String::from_utf8_lossy(line).trim().to_owned();
        self.skip_line()?;
        Ok(line)
    }

    /// Skips a `/* */` comment. PostgreSQL's nest. Of MySQL's conditional ones only the opening mark is skipped.
    fn comment(&mut self) -> Result<(), SourceError> {
        let window = self.stream.fill(9)?;
        if self.dialect == Dialect::MySql {
            // MariaDB's sandbox mark (`/*M!999999`) is for the client, not for the server.
            let conditional =
                window.starts_with(b"/*!") || (window.starts_with(b"/*M!") && !window.starts_with(b"/*M!99999"));
            if conditional {
                let version = window.iter().skip(3).take_while(|byte| byte.is_ascii_digit() || **byte == b'!').count();
                self.stream.consume(3 + version);
                return Ok(());
            }
        }
        self.stream.consume(2);
        let mut depth = 1;
        while depth > 0 {
            let window = self.stream.fill(2)?;
            if window.len() < 2 {
                return Err(self.stream.truncated("the dump ends within a comment"));
            }
            let length = window.len();
            let nests = self.dialect == Dialect::Standard;
            match memchr2(b'*', b'/', &window[..length - 1]) {
                None => self.stream.consume(length - 1),
                Some(at) => {
                    let pair = [window[at], window[at + 1]];
                    let step = match &pair {
                        b"*/" => -1,
                        b"/*" if nests => 1,
                        _ => 0,
                    };
                    depth += step;
                    self.stream.consume(at + if step == 0 { 1 } else { 2 });
                }
            }
        }
        Ok(())
    }

    /// Skips to the end of a quoted string or name whose opening quote was consumed. The content is appended to `kept`,
    /// escapes included.
    fn quoted(&mut self, quote: u8, backslashes: bool, mut kept: Option<&mut Vec<u8>>) -> Result<(), SourceError> {
        loop {
            let window = self.stream.fill(1)?;
            let stop = if backslashes { memchr2(quote, b'\\', window) } else { memchr(quote, window) };
            let length = stop.unwrap_or(window.len());
            if let Some(kept) = kept.as_deref_mut() {
                if kept.len() + length > MAX_NAME {
                    return Err(self.stream.broken(0, format!("a name is longer than {MAX_NAME} bytes")));
                }
                kept.extend_from_slice(&window[..length]);
            }
            if stop.is_none() && length == 0 {
                return Err(self.stream.truncated("the dump ends within a string"));
            }
            self.stream.consume(length);
            if stop.is_none() {
                continue;
            }
            let window = self.stream.fill(2)?;
            let doubled = window[0] == quote && window.get(1) == Some(&quote);
            if !doubled && window[0] == quote {
                self.stream.consume(1);
                return Ok(());
            }
            let Some(&escaped) = window.get(1) else {
                return Err(self.stream.truncated("the dump ends within a string"));
            };
            if let Some(kept) = kept.as_deref_mut() {
                kept.push(escaped);
            }
            self.stream.consume(2);
        }
    }

    /// Skips `$tag$ ... $tag$` if one starts here.
    fn dollar_quoted(&mut self) -> Result<bool, SourceError> {
        let window = self.stream.fill(66)?;
        let Some(length) = window[1..].iter().position(|byte| *byte == b'$').map(|end| end + 2) else {
            return Ok(false);
        };
        let tag = &window[1..length - 1];
        if tag.iter().any(|byte| !is_word(*byte)) || tag.first().is_some_and(u8::is_ascii_digit) {
            return Ok(false);
        }
        let tag = window[..length].to_vec();
        self.stream.consume(length);
        loop {
            let window = self.stream.fill(tag.len())?;
            if let Some(at) = memmem::find(window, &tag) {
                self.stream.consume(at + tag.len());
                return Ok(true);
            }
            if window.len() < tag.len() {
                return Err(self.stream.truncated("the dump ends within a dollar-quoted string"));
            }
            let passed = window.len() - (tag.len() - 1);
            self.stream.consume(passed);
        }
    }

    /// Skips the rest of the statement. As in psql, a semicolon in parentheses or in the body of an SQL function
    /// (`BEGIN ATOMIC ... END`) does not end it.
    pub fn skip_statement(&mut self) -> Result<(), SourceError> {
        self.skip_blocks(false)
    }

    /// Like [`Lexer::skip_statement`], for `CREATE TRIGGER`: SQLite writes its body between a bare `BEGIN` and `END`.
    pub fn skip_trigger(&mut self) -> Result<(), SourceError> {
        self.skip_blocks(true)
    }

    fn skip_blocks(&mut self, bare: bool) -> Result<(), SourceError> {
        let nests = self.dialect == Dialect::Standard;
        let (mut parentheses, mut blocks) = (0i64, 0i64);
        loop {
            match self.token()? {
                Token::End => return Err(self.stream.truncated("the dump ends within a statement")),
                Token::Symbol(b';') if parentheses <= 0 && blocks <= 0 => return Ok(()),
                Token::Symbol(b'(') if nests => parentheses += 1,
                Token::Symbol(b')') if nests => parentheses -= 1,
                Token::Word(word) if nests => {
                    if word.eq_ignore_ascii_case("begin") {
                        blocks += i64::from(bare || blocks > 0 || self.peek()?.is("atomic"));
                    } else if blocks > 0 && word.eq_ignore_ascii_case("case") {
                        blocks += 1;
                    } else if blocks > 0 && word.eq_ignore_ascii_case("end") {
                        blocks -= 1;
                    }
                }
                _ => {}
            }
        }
    }

    /// Like [`Lexer::skip_statement`], but fast, for the rows of an INSERT.
    pub fn skip_insert(&mut self) -> Result<(), SourceError> {
        const STOPS: [bool; 256] = {
            let mut stops = [false; 256];
            let mut i = 0;
            while i < b"'\"`;-/#$Ee".len() {
                stops[b"'\"`;-/#$Ee"[i] as usize] = true;
                i += 1;
            }
            stops
        };
        if self.peeked.take() == Some(Token::Symbol(b';')) {
            return Ok(());
        }
        loop {
            let window = self.stream.fill(1)?;
            if window.is_empty() {
                return Err(self.stream.truncated("the dump ends within a statement"));
            }
            let length = window.len();
            let Some(at) = window.iter().position(|byte| STOPS[*byte as usize]) else {
                self.stream.consume(length);
                continue;
            };
            let inside_word = at > 0 && is_word(window[at - 1]);
            match window[at] {
                b';' => {
                    self.stream.consume(at + 1);
                    return Ok(());
                }
                quote @ (b'\'' | b'"') => {
                    self.stream.consume(at + 1);
                    self.quoted(quote, self.backslashes, None)?;
                }
                // `E` opens an escape string only as a separate word; otherwise the scan continues after it.
                b'E' | b'e' if inside_word => self.stream.consume(at + 1),
                _ => {
                    self.stream.consume(at);
                    self.token()?;
                }
            }
        }
    }

    /// An error at the current position.
    pub fn broken(&self, detail: impl Into<String>) -> SourceError {
        self.stream.broken(0, detail)
    }
}

/// Whether a byte belongs to a bare word or number. All bytes beyond ASCII do.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::stream::{Progress, ReadMeter};

    fn tokens(dialect: Dialect, text: &str) -> Result<(Vec<Token>, bool), SourceError> {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, dialect);
        let mut tokens = Vec::new();
        loop {
            match lexer.token()? {
                Token::End => return Ok((tokens, lexer.is_complete())),
                token => tokens.push(token),
            }
        }
    }

    fn words(dialect: Dialect, text: &str) -> String {
        let shown = |token: &Token| match token {
            Token::Word(word) => word.clone(),
            Token::Name(name) => format!("<{name}>"),
            Token::Text => "''".into(),
            Token::Symbol(symbol) => (*symbol as char).to_string(),
            Token::End => unreachable!(),
        };
        tokens(dialect, text).unwrap().0.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn standard_strings_names_and_comments() {
        let text = r#"a 'it''s; \' E'\'' "x""y" $$ ; ' $$ $f$ $$ ; $f$ /* a /* b */ ; ' */ b$c -- ' ;
            1.5::int"#;
        assert_eq!(words(Dialect::Standard, text), r#"a '' '' <x"y> '' '' b$c 1 . 5 : : int"#);
    }

    #[test]
    fn mysql_strings_names_and_comments() {
        let text = "a 'it\\'s; ' `x``y` /*!40101 SET b */; # ' ;\n c /* ' */ 5--3 -- '\n/*M!999999\\- ' */ $$";
        assert_eq!(words(Dialect::MySql, text), "a '' <x`y> SET b ; c 5 - - 3 $ $");
    }

    #[test]
    fn statements_end_as_in_psql() {
        let text = "CREATE RULE r AS ON INSERT TO t DO (SELECT ';'; SELECT 2); \
            CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN a THEN 1 END; INSERT INTO faces VALUES (1); END; last";
        let mut quiet = |_: Progress| {};
        let mut lexer =
            Lexer::new(Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet), Dialect::Standard);
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("CREATE"));
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("last"));
    }

    #[test]
    fn skip_insert_finds_the_end() {
        for (dialect, text) in [
            (Dialect::Standard, r"INSERT INTO one VALUES (1e5, 'a\', E'\';', TRUE, ';', '-- ''', 2-1); last"),
            (Dialect::MySql, r#"INSERT INTO one VALUES (1,'a\';',";",0xE0,_binary '\\'),(2,'''',`e`); last"#),
        ] {
            let mut quiet = |_: Progress| {};
            let mut lexer =
                Lexer::new(Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet), dialect);
            lexer.skip_insert().unwrap();
            assert!(lexer.token().unwrap().is("last"), "{text}");
        }
    }

    #[test]
    fn dump_without_footer_is_incomplete() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n";
        assert!(!tokens(Dialect::Standard, dump).unwrap().1);
        assert!(tokens(Dialect::Standard, &format!("{dump}--\n-- PostgreSQL database dump complete\n")).unwrap().1);
        let dump = "-- MySQL dump 10.13  Distrib 8.0\n";
        assert!(!tokens(Dialect::MySql, dump).unwrap().1);
        assert!(tokens(Dialect::MySql, &format!("{dump}-- Dump completed on 2024-01-01\n")).unwrap().1);
    }

    #[test]
    fn unclosed_quotes_are_truncations() {
        for text in ["'abc", "'abc\\", "\"abc", "$$ abc $", "/* abc *", "E'\\"] {
            let error = tokens(Dialect::Standard, text).unwrap_err();
            assert!(matches!(error, SourceError::Truncated { .. }), "{text}: {error}");
        }
    }
}
