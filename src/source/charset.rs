//! Character sets of dumps, under the names that MySQL and PostgreSQL give them.

use std::borrow::Cow;

use encoding_rs::Encoding;

/// A character set in which texts can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CharacterSet {
    #[default]
    Utf8,
    /// Bytes without a character set; texts among them are taken for UTF-8.
    Binary,
    /// ISO 8859-1, with control characters from 0x80 to 0x9f.
    Latin1,
    Encoded(&'static Encoding),
    /// Known by name, but not implemented: only ASCII can be read.
    NotImplemented(&'static str),
}

/// MySQL's names, and the labels of the Encoding Standard.
const MYSQL: [(&str, &str); 29] = [
    ("latin1", "windows-1252"),
    ("latin2", "iso-8859-2"),
    ("latin5", "iso-8859-9"),
    ("latin7", "iso-8859-13"),
    ("greek", "iso-8859-7"),
    ("hebrew", "iso-8859-8"),
    ("cp1250", "windows-1250"),
    ("cp1251", "windows-1251"),
    ("cp1256", "windows-1256"),
    ("cp1257", "windows-1257"),
    ("cp866", "ibm866"),
    ("koi8r", "koi8-r"),
    ("koi8u", "koi8-u"),
    ("macroman", "macintosh"),
    ("tis620", "windows-874"),
    ("cp932", "shift_jis"),
    ("sjis", "shift_jis"),
    ("ujis", "euc-jp"),
    ("eucjpms", "euc-jp"),
    ("euckr", "euc-kr"),
    ("gb2312", "gbk"),
    ("gbk", "gbk"),
    ("gb18030", "gb18030"),
    ("big5", "big5"),
    ("utf8", "utf-8"),
    ("utf8mb3", "utf-8"),
    ("utf8mb4", "utf-8"),
    ("ascii", "utf-8"),
    ("default", "utf-8"),
];

/// PostgreSQL's names without `_` and `-`, and the labels of the Encoding Standard.
const POSTGRES: [(&str, &str); 47] = [
    ("utf8", "utf-8"),
    ("unicode", "utf-8"),
    ("sqlascii", "utf-8"),
    ("latin2", "iso-8859-2"),
    ("iso88592", "iso-8859-2"),
    ("latin3", "iso-8859-3"),
    ("latin4", "iso-8859-4"),
    ("latin5", "iso-8859-9"),
    ("latin6", "iso-8859-10"),
    ("latin7", "iso-8859-13"),
    ("latin8", "iso-8859-14"),
    ("latin9", "iso-8859-15"),
    ("latin10", "iso-8859-16"),
    ("iso88595", "iso-8859-5"),
    ("iso88596", "iso-8859-6"),
    ("iso88597", "iso-8859-7"),
    ("iso88598", "iso-8859-8"),
    ("win1250", "windows-1250"),
    ("win1251", "windows-1251"),
    ("win1252", "windows-1252"),
    ("win1253", "windows-1253"),
    ("win1254", "windows-1254"),
    ("win1255", "windows-1255"),
    ("win1256", "windows-1256"),
    ("win1257", "windows-1257"),
    ("win1258", "windows-1258"),
    ("win866", "ibm866"),
    ("win874", "windows-874"),
    ("windows1250", "windows-1250"),
    ("windows1251", "windows-1251"),
    ("windows1252", "windows-1252"),
    ("koi8", "koi8-r"),
    ("koi8r", "koi8-r"),
    ("koi8u", "koi8-u"),
    ("eucjp", "euc-jp"),
    ("eucjis2004", "euc-jp"),
    ("euckr", "euc-kr"),
    ("euccn", "gbk"),
    ("uhc", "euc-kr"),
    ("sjis", "shift_jis"),
    ("shiftjis", "shift_jis"),
    ("mskanji", "shift_jis"),
    ("win932", "shift_jis"),
    ("big5", "big5"),
    ("win950", "big5"),
    ("gbk", "gbk"),
    ("gb18030", "gb18030"),
];

/// Names that neither list can decode.
const NOT_IMPLEMENTED: [&str; 14] = [
    "armscii8",
    "cp850",
    "cp852",
    "dec8",
    "euctw",
    "geostd8",
    "hp8",
    "johab",
    "keybcs2",
    "macce",
    "muleinternal",
    "shiftjis2004",
    "swe7",
    "win936",
];

impl CharacterSet {
    /// Finds a character set by MySQL's name.
    pub fn mysql(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        if name == "binary" {
            return Some(Self::Binary);
        }
        find(&MYSQL, &name)
    }

    /// Finds an encoding by PostgreSQL's name.
    pub fn postgres(name: &str) -> Option<Self> {
        let mut name = name.to_ascii_lowercase();
        name.retain(|c| c.is_ascii_alphanumeric());
        if matches!(name.as_str(), "latin1" | "iso88591") {
            return Some(Self::Latin1);
        }
        find(&POSTGRES, &name)
    }

    /// Whether the second byte of a character can be a backslash or a backtick.
    pub fn hides_ascii(self) -> bool {
        match self {
            Self::Encoded(encoding) => {
                [encoding_rs::SHIFT_JIS, encoding_rs::BIG5, encoding_rs::GBK, encoding_rs::GB18030].contains(&encoding)
            }
            _ => false,
        }
    }

    /// Whether two bytes are one character, where [`CharacterSet::hides_ascii`]. As MySQL's `ismbchar`.
    pub fn is_pair(self, first: u8, second: u8) -> bool {
        let Self::Encoded(encoding) = self else { return false };
        let trail = matches!(second, 0x40..=0x7e | 0x80..=0xfe);
        match first {
            _ if encoding == encoding_rs::SHIFT_JIS => {
                matches!(first, 0x81..=0x9f | 0xe0..=0xfc) && trail && second <= 0xfc
            }
            _ if encoding == encoding_rs::BIG5 => {
                matches!(first, 0xa1..=0xf9) && matches!(second, 0x40..=0x7e | 0xa1..=0xfe)
            }
            _ => matches!(first, 0x81..=0xfe) && trail,
        }
    }

    /// Decodes bytes to UTF-8 without checking what is UTF-8 already. The error says why it cannot.
    pub fn decode(self, bytes: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::Utf8 | Self::Binary => Ok(bytes),
            _ if bytes.is_ascii() => Ok(bytes),
            Self::Latin1 => Ok(Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into_bytes())),
            Self::Encoded(encoding) => encoding
                .decode_without_bom_handling_and_without_replacement(&bytes)
                .map(|text| Cow::Owned(text.into_owned().into_bytes()))
                .ok_or_else(|| format!("a text is not valid {}", encoding.name())),
            Self::NotImplemented(name) => Err(format!(
                "texts in the character set {name} cannot be read: dump with pg_dump --encoding=UTF8 or \
                 mysqldump --default-character-set=utf8mb4"
            )),
        }
    }
}

fn find(names: &[(&str, &str)], name: &str) -> Option<CharacterSet> {
    if let Some(known) = NOT_IMPLEMENTED.iter().find(|known| **known == name) {
        return Some(CharacterSet::NotImplemented(known));
    }
    let (_, label) = names.iter().find(|(known, _)| *known == name)?;
    let encoding = Encoding::for_label(label.as_bytes())?;
    Some(if encoding == encoding_rs::UTF_8 { CharacterSet::Utf8 } else { CharacterSet::Encoded(encoding) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_name_has_an_encoding() {
        for (name, _) in MYSQL {
            assert!(CharacterSet::mysql(name).is_some(), "{name}");
        }
        for (name, _) in POSTGRES {
            assert!(CharacterSet::postgres(name).is_some(), "{name}");
        }
        assert_eq!(CharacterSet::postgres("LATIN1"), Some(CharacterSet::Latin1));
        assert_eq!(CharacterSet::mysql("nonsense"), None);
    }

    #[test]
    fn texts_are_decoded() {
        let decode = |set: CharacterSet, bytes: &'static [u8]| {
            set.decode(bytes.into()).map(|text| String::from_utf8(text.into_owned()).unwrap())
        };
        let cp932 = CharacterSet::mysql("cp932").unwrap();
        assert_eq!(decode(cp932, b"\x95\x5c\x8e\xa6").unwrap(), "\u{8868}\u{793a}");
        assert!(decode(cp932, b"\x95").unwrap_err().contains("Shift_JIS"));
        assert_eq!(decode(CharacterSet::mysql("latin1").unwrap(), b"\x80").unwrap(), "\u{20ac}");
        assert_eq!(decode(CharacterSet::Latin1, b"\x80").unwrap(), "\u{80}");
        let cp850 = CharacterSet::mysql("cp850").unwrap();
        assert_eq!(decode(cp850, b"abc").unwrap(), "abc");
        assert!(decode(cp850, b"\x80").unwrap_err().contains("cp850"));
    }

    #[test]
    fn pairs_follow_the_character_set() {
        let set = |name| CharacterSet::mysql(name).unwrap();
        assert!(set("cp932").is_pair(0x95, b'\\') && set("gbk").is_pair(0x95, b'\\'));
        assert!(!set("big5").is_pair(0x95, b'\\') && set("big5").is_pair(0xa4, b'\\'));
        assert!(!set("cp932").is_pair(0xb1, b'\\'), "half-width katakana is one byte");
        assert!(!set("cp932").is_pair(0x95, b'\''));
        assert!(!set("latin1").hides_ascii() && !set("euckr").hides_ascii());
    }
}
