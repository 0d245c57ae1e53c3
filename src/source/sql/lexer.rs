//! The tokens of an SQL script, split as psql and the mysql client split them.

use memchr::{memchr, memchr2, memmem};

use super::super::charset::CharacterSet;
use super::super::error::SourceError;
use super::super::stream::Stream;

/// The databases whose rules for strings, names and comments differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Postgres,
    MySql,
}

/// The rules that hold at a place of the script. Settings change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    pub dialect: Dialect,
    /// Whether a backslash in a plain string is an escape.
    pub backslashes: bool,
    /// Whether `"` quotes names in MySQL.
    pub ansi_quotes: bool,
    /// The character set in which the script is written.
    pub charset: CharacterSet,
}

impl Syntax {
    pub fn new(dialect: Dialect) -> Self {
        let backslashes = dialect == Dialect::MySql;
        Self { dialect, backslashes, ansi_quotes: false, charset: CharacterSet::Utf8 }
    }

    /// Whether this quote opens a string.
    pub fn quotes_string(self, quote: u8) -> bool {
        quote == b'\'' || (quote == b'"' && self.dialect == Dialect::MySql && !self.ansi_quotes)
    }

    /// Whether this character opens a quoted name.
    fn quotes_name(self, quote: u8) -> bool {
        match quote {
            b'"' => !self.quotes_string(quote),
            b'`' => self.dialect != Dialect::Postgres,
            _ => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// A bare word or number, as written.
    Word(String),
    /// A quoted name.
    Name(String),
    /// A string: the start of its content, at most [`MAX_TEXT`] bytes, as written between the quotes.
    Text(Vec<u8>),
    Symbol(u8),
    /// The semicolon, or MySQL's DELIMITER, that ends a statement.
    Stop,
    /// The end of the dump.
    End,
}

impl Token {
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword))
    }

    pub fn is_any(&self, keywords: &[&str]) -> bool {
        keywords.iter().any(|keyword| self.is(keyword))
    }
}

/// Limit for a quoted name, in bytes. The databases allow about 64 characters.
const MAX_NAME: usize = 4096;

/// Bytes of a string that are kept in its token.
const MAX_TEXT: usize = 4096;

pub struct Lexer<'s> {
    pub stream: Stream<'s>,
    pub syntax: Syntax,
    /// What ends a statement: `;` unless MySQL's DELIMITER changed it.
    pub delimiter: Vec<u8>,
    /// Whether the statement may have a body of statements. Elsewhere the server ends statements at `;`, whatever
    /// delimiter the client has.
    pub in_body: bool,
    /// Dump headers seen minus footers seen. A truncated dump lacks its footer.
    open_dumps: i64,
    /// Footers seen.
    closed_dumps: u64,
    /// A header of mysqldump before version 10, which wrote no footers.
    pub old_header: bool,
    /// Conditional comments that are open: `/*!`.
    conditionals: u32,
    /// The quote of the last string.
    pub last_quote: u8,
    /// Whether no token of a statement was read since the last one ended.
    between_statements: bool,
    peeked: Option<Token>,
}

impl<'s> Lexer<'s> {
    pub fn new(stream: Stream<'s>, dialect: Dialect) -> Self {
        Self {
            stream,
            syntax: Syntax::new(dialect),
            delimiter: b";".to_vec(),
            in_body: false,
            open_dumps: 0,
            closed_dumps: 0,
            old_header: false,
            conditionals: 0,
            last_quote: 0,
            between_statements: true,
            peeked: None,
        }
    }

    /// The next token starts a statement.
    pub fn begin_statement(&mut self) {
        self.between_statements = self.peeked.is_none();
        self.in_body = false;
    }

    /// Whether every dump header was followed by its footer, and no conditional comment is open.
    pub fn is_complete(&self) -> bool {
        self.open_dumps <= 0 && self.conditionals == 0
    }

    /// Whether footers prove that the dump is complete.
    pub fn has_footer(&self) -> bool {
        self.closed_dumps > 0 && self.is_complete()
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

    /// Puts a token in front of those that follow.
    pub fn push_back(&mut self, token: Token) {
        debug_assert!(self.peeked.is_none());
        self.peeked = Some(token);
    }

    /// Consumes the next token if it is this symbol.
    pub fn take_symbol(&mut self, symbol: u8) -> Result<bool, SourceError> {
        let found = *self.peek()? == Token::Symbol(symbol);
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    /// Consumes the end of the statement if it comes next.
    pub fn take_stop(&mut self) -> Result<bool, SourceError> {
        let found = *self.peek()? == Token::Stop;
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    /// Whether a query in parentheses comes next: `(SELECT`.
    pub fn peek_query(&mut self) -> Result<bool, SourceError> {
        if *self.peek()? != Token::Symbol(b'(') {
            return Ok(false);
        }
        let window = self.stream.fill(64)?;
        let word = window.trim_ascii_start();
        let is = |query: &str| {
            word.get(..query.len()).is_some_and(|start| start.eq_ignore_ascii_case(query.as_bytes()))
                && word.get(query.len()).is_none_or(|byte| byte.is_ascii_whitespace())
        };
        Ok(is("SELECT") || is("WITH"))
    }

    /// Consumes the next token if it is one of these words.
    pub fn take_any(&mut self, words: &[&str]) -> Result<bool, SourceError> {
        let found = self.peek()?.is_any(words);
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

    /// Whether the next token starts a line. White space and comments before it are skipped.
    pub fn starts_line(&mut self) -> Result<bool, SourceError> {
        if self.peeked.is_some() {
            return Ok(false);
        }
        self.skip_blank()?;
        Ok(self.stream.at_line_start())
    }

    /// Whether the bytes of the delimiter come next.
    fn at_delimiter(&mut self) -> Result<bool, SourceError> {
        Ok(self.stream.fill(self.delimiter.len())?.starts_with(&self.delimiter))
    }

    fn read_token(&mut self) -> Result<Token, SourceError> {
        self.skip_blank()?;
        let syntax = self.syntax;
        if self.at_delimiter()? {
            self.stream.consume(self.delimiter.len());
            self.between_statements = true;
            return Ok(Token::Stop);
        }
        self.between_statements = false;
        let Some(&byte) = self.stream.fill(1)?.first() else { return Ok(Token::End) };
        match byte {
            b';' if !self.in_body => {
                self.stream.consume(1);
                self.between_statements = true;
                Ok(Token::Stop)
            }
            quote if syntax.quotes_string(quote) => {
                self.stream.consume(1);
                self.text(quote, syntax.backslashes)
            }
            quote if syntax.quotes_name(quote) => {
                self.stream.consume(1);
                let mut name = Vec::new();
                self.quoted(quote, false, Some((&mut name, MAX_NAME)))?;
                let name = syntax.charset.decode(name.into()).unwrap_or_default();
                Ok(Token::Name(String::from_utf8_lossy(&name).into_owned()))
            }
            b'$' if syntax.dialect == Dialect::Postgres && self.dollar_quoted()? => Ok(Token::Text(Vec::new())),
            _ if is_word(byte) => self.word(),
            _ => {
                self.stream.consume(1);
                Ok(Token::Symbol(byte))
            }
        }
    }

    fn text(&mut self, quote: u8, backslashes: bool) -> Result<Token, SourceError> {
        let mut text = Vec::new();
        self.last_quote = quote;
        self.quoted(quote, backslashes, Some((&mut text, 0)))?;
        Ok(Token::Text(text))
    }

    fn word(&mut self) -> Result<Token, SourceError> {
        let mut length = loop {
            let window = self.stream.window();
            if let Some(end) = window.iter().position(|byte| !is_word(*byte) && *byte != b'$') {
                break end;
            }
            if !self.stream.grow()? {
                break self.stream.window().len();
            }
        };
        if self.delimiter != b";"
            && let Some(end) = memmem::find(&self.stream.window()[..length], &self.delimiter)
        {
            length = end;
        }
        let word = String::from_utf8_lossy(&self.stream.window()[..length]).into_owned();
        self.stream.consume(length);
        let escaped = self.syntax.dialect == Dialect::Postgres && word.eq_ignore_ascii_case("e");
        if escaped && self.stream.fill(1)?.first() == Some(&b'\'') {
            self.stream.consume(1);
            return self.text(b'\'', true);
        }
        Ok(Token::Word(word))
    }

    /// Skips white space and comments, and records dump headers and footers.
    pub fn skip_blank(&mut self) -> Result<(), SourceError> {
        debug_assert!(self.peeked.is_none());
        let mysql = self.syntax.dialect == Dialect::MySql;
        loop {
            let window = self.stream.fill(3)?;
            let byte = |i: usize| window.get(i).copied();
            match (byte(0), byte(1)) {
                (Some(b' ' | b'\t' | b'\r' | b'\n' | 0x0c), _) => {
                    let blank = window.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(window.len());
                    self.stream.consume(blank);
                }
                // The mysql client also skips a line that starts with `--` where a statement starts.
                (Some(b'-'), Some(b'-'))
                    if !mysql
                        || byte(2).is_none_or(|byte| byte <= b' ')
                        || (self.between_statements && self.stream.at_line_start()) =>
                {
                    self.line_comment()?;
                }
                (Some(b'#'), _) if mysql => self.line_comment()?,
                (Some(b'/'), Some(b'*')) => self.comment()?,
                // The end of a conditional comment. Its content is read as SQL.
                (Some(b'*'), Some(b'/')) if self.conditionals > 0 => {
                    self.conditionals -= 1;
                    self.stream.consume(2);
                }
                _ => return Ok(()),
            }
        }
    }

    fn line_comment(&mut self) -> Result<(), SourceError> {
        let start = self.stream.fill(64)?;
        let line = &start[..memchr(b'\n', start).unwrap_or(start.len())];
        let step = match line.trim_ascii_end() {
            b"-- PostgreSQL database dump complete" | b"-- PostgreSQL database cluster dump complete" => -1,
            b"-- PostgreSQL database dump" | b"-- PostgreSQL database cluster dump" => 1,
            line if line.starts_with(b"-- Dump completed") => -1,
            line => match line.strip_prefix(b"-- MySQL dump ").or(line.strip_prefix(b"-- MariaDB dump ")) {
                Some([b'1'..=b'9', b'.', ..]) => {
                    self.old_header = true;
                    0
                }
                Some(_) => 1,
                None => 0,
            },
        };
        self.open_dumps += step;
        self.closed_dumps += u64::from(step < 0);
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
        let window = self.stream.fill(11)?;
        if self.syntax.dialect == Dialect::MySql
            && let Some(mark) = [&b"/*!"[..], b"/*M!"].into_iter().find(|mark| window.starts_with(mark))
        {
            let digits = window[mark.len()..].iter().take(6).take_while(|byte| byte.is_ascii_digit()).count();
            let digits = if digits < 5 { 0 } else { digits };
            let version = &window[mark.len()..mark.len() + digits];
            // The content is for servers of this version and later. No server has version 20, and 99999 is the mark of
            // what is for clients alone.
            let future = version.starts_with(b"99999") || (digits == 6 && version >= &b"200000"[..]);
            if !future {
                self.stream.consume(mark.len() + digits);
                self.conditionals += 1;
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
            let nests = self.syntax.dialect == Dialect::Postgres;
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

    /// Skips to the end of a quoted string or name whose opening quote was consumed. The content is appended to what is
    /// kept, up to a limit in bytes: a name must not be longer (limit > 0), and a string is cut (limit 0).
    fn quoted(
        &mut self,
        quote: u8,
        backslashes: bool,
        mut kept: Option<(&mut Vec<u8>, usize)>,
    ) -> Result<(), SourceError> {
        let charset = self.syntax.charset;
        let mut keep = |stream: &Stream<'_>, length: usize| {
            let Some((kept, limit)) = &mut kept else { return Ok(()) };
            if *limit > 0 && kept.len() + length > *limit {
                return Err(stream.broken(0, format!("a name is longer than {limit} bytes")));
            }
            let room = MAX_TEXT.saturating_sub(kept.len());
            kept.extend_from_slice(&stream.window()[..length.min(room)]);
            Ok(())
        };
        loop {
            let window = self.stream.fill(2)?;
            let stop = if charset.hides_ascii() {
                // Stops at the last byte, too, which may be the first half of a character.
                let special = |byte: &u8| *byte == quote || (backslashes && *byte == b'\\') || *byte >= 0x80;
                window.iter().position(special)
            } else if backslashes {
                memchr2(quote, b'\\', window)
            } else {
                memchr(quote, window)
            };
            let length = stop.unwrap_or(window.len());
            if stop.is_none() && length == 0 {
                return Err(self.stream.truncated("the dump ends within a string"));
            }
            keep(&self.stream, length)?;
            self.stream.consume(length);
            if stop.is_none() {
                continue;
            }
            let window = self.stream.fill(2)?;
            let (first, second) = (window[0], window.get(1).copied());
            if first >= 0x80 {
                let pair = second.is_some_and(|second| charset.is_pair(first, second));
                keep(&self.stream, 1 + usize::from(pair))?;
                self.stream.consume(1 + usize::from(pair));
                continue;
            }
            if first == quote && second != Some(quote) {
                self.stream.consume(1);
                return Ok(());
            }
            if second.is_none() {
                return Err(self.stream.truncated("the dump ends within a string"));
            }
            // A doubled quote stands for one; an escape is kept as written.
            let escape = usize::from(first != quote);
            self.stream.consume(1 - escape);
            keep(&self.stream, 1 + escape)?;
            self.stream.consume(1 + escape);
            // PostgreSQL escapes a character, MySQL a byte.
            if escape == 1 && self.syntax.dialect == Dialect::Postgres && second.is_some_and(|byte| byte >= 0x80) {
                let trail = self.stream.fill(1)?.first().copied();
                if let (Some(lead), Some(trail)) = (second, trail)
                    && charset.is_pair(lead, trail)
                {
                    keep(&self.stream, 1)?;
                    self.stream.consume(1);
                }
            }
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
        self.each_token(|_, _| Ok(()))
    }

    /// Passes the tokens up to the end of the statement to `show`, which also learns whether each starts a line.
    pub fn each_token(&mut self, mut show: impl FnMut(&Token, bool) -> Result<(), String>) -> Result<(), SourceError> {
        let nests = self.syntax.dialect != Dialect::MySql;
        let (mut parentheses, mut blocks) = (0i64, 0i64);
        loop {
            let line_start = self.starts_line()?;
            let token = self.token()?;
            show(&token, line_start).map_err(|detail| self.broken(detail))?;
            match token {
                Token::End => return Err(self.stream.truncated("the dump ends within a statement")),
                Token::Stop if parentheses <= 0 && blocks <= 0 => return Ok(()),
                Token::Symbol(b'(') if nests => parentheses += 1,
                Token::Symbol(b')') if nests => parentheses -= 1,
                Token::Word(word) if nests => {
                    if word.eq_ignore_ascii_case("begin") {
                        blocks += i64::from(blocks > 0 || self.peek()?.is("atomic"));
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

    /// An error at the current position.
    pub fn broken(&self, detail: impl Into<String>) -> SourceError {
        self.stream.broken(0, detail)
    }
}

/// Whether a byte belongs to a bare word or number. All bytes beyond ASCII do.
pub fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Progress, ReadMeter};

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
            Token::Text(_) => "''".into(),
            Token::Stop => ";".into(),
            Token::Symbol(symbol) => (*symbol as char).to_string(),
            Token::End => unreachable!(),
        };
        tokens(dialect, text).unwrap().0.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn standard_strings_names_and_comments() {
        let text = r#"a 'it''s; \' E'\'' "x""y" $$ ; ' $$ $f$ $$ ; $f$ /* a /* b */ ; ' */ b$c -- ' ;
            1.5::int"#;
        assert_eq!(words(Dialect::Postgres, text), r#"a '' '' <x"y> '' '' b$c 1 . 5 : : int"#);
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
            Lexer::new(Stream::new(Box::new(text.as_bytes()), ReadMeter::default(), &mut quiet), Dialect::Postgres);
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("CREATE"));
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("last"));
    }

    #[test]
    fn names_are_quoted_as_in_each_database() {
        assert_eq!(words(Dialect::Postgres, "a[1]"), "a [ 1 ]");
        assert_eq!(words(Dialect::MySql, "\"a\""), "''");
    }

    #[test]
    fn delimiters_end_statements_within_words() {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(&b"BEGIN a; END$$ last"[..]), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, Dialect::MySql);
        lexer.delimiter = b"$$".to_vec();
        lexer.in_body = true;
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("last"));
    }

    #[test]
    fn semicolons_end_statements_without_a_body_under_any_delimiter() {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(&b"SET a = 1; SET b = 2$$ last"[..]), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, Dialect::MySql);
        lexer.delimiter = b"$$".to_vec();
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("SET"));
        assert!(lexer.token().unwrap().is("b"));
        lexer.skip_statement().unwrap();
        assert!(lexer.token().unwrap().is("last"));
    }

    #[test]
    fn second_bytes_of_characters_are_no_quotes_or_escapes() {
        let mut quiet = |_: Progress| {};
        let stream = Stream::new(Box::new(&b"'\x95\\' `\x95\x60` last"[..]), ReadMeter::default(), &mut quiet);
        let mut lexer = Lexer::new(stream, Dialect::MySql);
        lexer.syntax.charset = CharacterSet::mysql("cp932").unwrap();
        assert_eq!(lexer.token().unwrap(), Token::Text(b"\x95\\".to_vec()));
        assert!(matches!(lexer.token().unwrap(), Token::Name(_)));
        assert!(lexer.token().unwrap().is("last"));
    }

    #[test]
    fn dump_without_footer_is_incomplete() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n";
        assert!(!tokens(Dialect::Postgres, dump).unwrap().1);
        assert!(tokens(Dialect::Postgres, &format!("{dump}--\n-- PostgreSQL database dump complete\n")).unwrap().1);
        let dump = "-- MySQL dump 10.13  Distrib 8.0\n";
        assert!(!tokens(Dialect::MySql, dump).unwrap().1);
        assert!(tokens(Dialect::MySql, &format!("{dump}-- Dump completed on 2024-01-01\n")).unwrap().1);
    }

    #[test]
    fn unclosed_quotes_are_truncations() {
        for text in ["'abc", "'abc\\", "\"abc", "$$ abc $", "/* abc *", "E'\\"] {
            let error = tokens(Dialect::Postgres, text).unwrap_err();
            assert!(matches!(error, SourceError::Truncated { .. }), "{text}: {error}");
        }
    }
}
