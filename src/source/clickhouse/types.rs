//! ClickHouse's type names, as `DESCRIBE` prints them, taken apart. Pure.

/// A type of ClickHouse, as far as reading depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChType {
    Bool,
    Integer {
        bits: u16,
        signed: bool,
    },
    Float32,
    Float64,
    BFloat16,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Date,
    DateTime,
    DateTime64 {
        scale: u8,
    },
    /// `Time` and `Time64`.
    TimeOfDay,
    Enum,
    Text,
    /// `FixedString(N)`.
    Fixed,
    Uuid,
    Address,
    Interval,
    Array(Box<ChType>),
    /// With the members' names, where they have some.
    Tuple(Vec<(Option<String>, ChType)>),
    Map(Box<ChType>, Box<ChType>),
    /// `JSON` and `Object('json')`.
    Json,
    /// `Variant` and `Dynamic`: a value of one type or another.
    Either,
    /// `Point` and the other shapes, which are tuples and arrays under names of their own.
    Shape,
    /// `Nothing`: there is no value.
    Nothing,
    Nullable(Box<ChType>),
    /// The opaque state of an aggregate function.
    State,
}

/// Why a type's name is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TypeError {
    #[error("this version of outhaul does not know the type")]
    Unknown,
    #[error("the type's name cannot be taken apart")]
    Malformed,
}

/// Types within types, so that a name made to harm ends in an error and not in the stack's end.
const DEPTH_MAX: usize = 32;

impl ChType {
    /// Takes a type's name apart. `LowCardinality(T)` is read as `T`, and `SimpleAggregateFunction(f, T)` too.
    ///
    /// # Errors
    /// [`TypeError`].
    pub(crate) fn parse(text: &str) -> Result<Self, TypeError> {
        let mut names = TypeNames { rest: text.trim() };
        let parsed = names.one(DEPTH_MAX)?;
        if names.rest.is_empty() { Ok(parsed) } else { Err(TypeError::Malformed) }
    }

    /// Whether a value may be NULL.
    pub(crate) fn is_nullable(&self) -> bool {
        matches!(self, Self::Nullable(_) | Self::Nothing | Self::Either)
    }

    /// The type without its `Nullable`.
    pub(crate) fn inner(&self) -> &Self {
        match self {
            Self::Nullable(inner) => inner,
            other => other,
        }
    }

    /// Whether values consist of others.
    pub(crate) fn is_nested(&self) -> bool {
        matches!(self.inner(), Self::Array(_) | Self::Tuple(_) | Self::Map(..) | Self::Shape)
    }

    /// Whether any value within is of a type for which `is` holds.
    pub(crate) fn holds(&self, is: &impl Fn(&Self) -> bool) -> bool {
        is(self)
            || match self {
                Self::Array(inner) | Self::Nullable(inner) => inner.holds(is),
                Self::Map(key, value) => key.holds(is) || value.holds(is),
                Self::Tuple(members) => members.iter().any(|(_, member)| member.holds(is)),
                _ => false,
            }
    }
}

struct TypeNames<'a> {
    rest: &'a str,
}

impl<'a> TypeNames<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, sign: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn wanted(&mut self, sign: char) -> Result<(), TypeError> {
        if self.eat(sign) { Ok(()) } else { Err(TypeError::Malformed) }
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A name in backquotes or double quotes, where one comes.
    fn quoted(&mut self) -> Result<Option<String>, TypeError> {
        self.skip_space();
        let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '`' | '"')) else { return Ok(None) };
        let mut name = String::new();
        let mut letters = self.rest.char_indices().skip(1).peekable();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => name.extend(letters.next().map(|(_, letter)| letter)),
                letter if letter == quote => {
                    if letters.next_if(|(_, next)| *next == quote).is_some() {
                        name.push(quote);
                    } else {
                        self.rest = self.rest.get(at + 1..).unwrap_or_default();
                        return Ok(Some(name));
                    }
                }
                letter => name.push(letter),
            }
        }
        Err(TypeError::Malformed)
    }

    /// Everything up to the bracket that closes the one just opened, strings passed over.
    fn up_to_close(&mut self) -> Result<&'a str, TypeError> {
        let mut depth = 1_usize;
        let mut letters = self.rest.char_indices();
        let mut quote = None;
        while let Some((at, letter)) = letters.next() {
            match (quote, letter) {
                (Some(_), '\\') => drop(letters.next()),
                (Some(open), letter) if letter == open => quote = None,
                (None, '\'' | '`' | '"') => quote = Some(letter),
                (None, '(') => depth += 1,
                (None, ')') => {
                    depth -= 1;
                    if depth == 0 {
                        let (inside, rest) = self.rest.split_at(at);
                        self.rest = rest.get(1..).unwrap_or_default();
                        return Ok(inside);
                    }
                }
                _ => {}
            }
        }
        Err(TypeError::Malformed)
    }

    fn number(&mut self) -> Result<u8, TypeError> {
        self.word().parse().map_err(|_| TypeError::Malformed)
    }

    fn one(&mut self, depth: usize) -> Result<ChType, TypeError> {
        let depth = depth.checked_sub(1).ok_or(TypeError::Malformed)?;
        let name = self.word();
        if !self.eat('(') {
            return plain(name);
        }
        match name {
            "Nullable" => {
                let inner = self.one(depth)?;
                self.wanted(')')?;
                Ok(if inner.is_nullable() { inner } else { ChType::Nullable(Box::new(inner)) })
            }
            "LowCardinality" => {
                let inner = self.one(depth)?;
                self.wanted(')')?;
                Ok(inner)
            }
            "SimpleAggregateFunction" => self.simple_aggregate(depth),
            "Array" => {
                let inner = self.one(depth)?;
                self.wanted(')')?;
                Ok(ChType::Array(Box::new(inner)))
            }
            "Map" => {
                let key = self.one(depth)?;
                self.wanted(',')?;
                let value = self.one(depth)?;
                self.wanted(')')?;
                Ok(ChType::Map(Box::new(key), Box::new(value)))
            }
            "Tuple" => Ok(ChType::Tuple(self.members(depth)?)),
            "Nested" => Ok(ChType::Array(Box::new(ChType::Tuple(self.members(depth)?)))),
            "Decimal" => {
                let precision = self.number()?;
                let scale = if self.eat(',') { self.number()? } else { 0 };
                self.wanted(')')?;
                decimal(precision, scale)
            }
            "Decimal32" | "Decimal64" | "Decimal128" | "Decimal256" => {
                let scale = self.number()?;
                self.wanted(')')?;
                let precision = match name {
                    "Decimal32" => 9,
                    "Decimal64" => 18,
                    "Decimal128" => 38,
                    _ => 76,
                };
                decimal(precision, scale)
            }
            "DateTime64" => {
                let scale = self.number()?;
                self.up_to_close()?;
                if scale <= 9 { Ok(ChType::DateTime64 { scale }) } else { Err(TypeError::Malformed) }
            }
            _ => {
                let inside = self.up_to_close()?;
                with_arguments(name, inside)
            }
        }
    }

    /// `SimpleAggregateFunction(function, T)`, whose function may have arguments.
    fn simple_aggregate(&mut self, depth: usize) -> Result<ChType, TypeError> {
        self.word();
        if self.eat('(') {
            self.up_to_close()?;
        }
        self.wanted(',')?;
        let inner = self.one(depth)?;
        // More types would be more arguments of the function, which takes one.
        self.wanted(')')?;
        Ok(inner)
    }

    /// The name of a member, where it has one: it is followed by a type, and a type by its arguments, a comma or the end.
    fn member_name(&mut self) -> Result<Option<String>, TypeError> {
        if let Some(name) = self.quoted()? {
            return Ok(Some(name));
        }
        let before = self.rest;
        let word = self.word();
        self.skip_space();
        if !word.is_empty() && self.rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Ok(Some(word.to_owned()));
        }
        self.rest = before;
        Ok(None)
    }

    /// The members of a tuple, up to its closing bracket: each a type, or a name and a type.
    fn members(&mut self, depth: usize) -> Result<Vec<(Option<String>, ChType)>, TypeError> {
        let mut members = Vec::new();
        if self.eat(')') {
            return Ok(members);
        }
        loop {
            let name = self.member_name()?;
            members.push((name, self.one(depth)?));
            if self.eat(')') {
                return Ok(members);
            }
            self.wanted(',')?;
        }
    }
}

fn decimal(precision: u8, scale: u8) -> Result<ChType, TypeError> {
    if (1..=76).contains(&precision) && scale <= precision {
        Ok(ChType::Decimal { precision, scale })
    } else {
        Err(TypeError::Malformed)
    }
}

/// A type with arguments that say nothing of how it is read.
fn with_arguments(name: &str, inside: &str) -> Result<ChType, TypeError> {
    Ok(match name {
        "DateTime" => ChType::DateTime,
        "Time64" => ChType::TimeOfDay,
        "Enum" | "Enum8" | "Enum16" => ChType::Enum,
        "FixedString" => ChType::Fixed,
        "AggregateFunction" => ChType::State,
        "Variant" | "Dynamic" => ChType::Either,
        "JSON" => ChType::Json,
        "Object" if inside.to_ascii_lowercase().contains("json") => ChType::Json,
        _ => return Err(TypeError::Unknown),
    })
}

fn plain(name: &str) -> Result<ChType, TypeError> {
    let integer = |signed: bool, bits: &str| match bits {
        "8" | "16" | "32" | "64" | "128" | "256" => {
            bits.parse().map(|bits| ChType::Integer { bits, signed }).map_err(|_| TypeError::Malformed)
        }
        _ => Err(TypeError::Unknown),
    };
    if let Some(bits) = name.strip_prefix("UInt") {
        return integer(false, bits);
    }
    if let Some(bits) = name.strip_prefix("Int").filter(|bits| bits.starts_with(|c: char| c.is_ascii_digit())) {
        return integer(true, bits);
    }
    if name.starts_with("Interval") {
        return Ok(ChType::Interval);
    }
    Ok(match name {
        "Bool" => ChType::Bool,
        "Float32" => ChType::Float32,
        "Float64" => ChType::Float64,
        "BFloat16" => ChType::BFloat16,
        "Date" | "Date32" => ChType::Date,
        "DateTime" => ChType::DateTime,
        "DateTime64" => ChType::DateTime64 { scale: 3 },
        "Time" | "Time64" => ChType::TimeOfDay,
        "String" => ChType::Text,
        "UUID" => ChType::Uuid,
        "IPv4" | "IPv6" => ChType::Address,
        "JSON" => ChType::Json,
        "Nothing" => ChType::Nothing,
        "Point" | "Ring" | "Polygon" | "MultiPolygon" | "LineString" | "MultiLineString" | "MultiPoint" => {
            ChType::Shape
        }
        "Dynamic" | "Geometry" => ChType::Either,
        "Tuple" => ChType::Tuple(Vec::new()),
        "" => return Err(TypeError::Malformed),
        _ => return Err(TypeError::Unknown),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nullable(inner: ChType) -> ChType {
        ChType::Nullable(Box::new(inner))
    }

    fn array(inner: ChType) -> ChType {
        ChType::Array(Box::new(inner))
    }

    #[test]
    fn type_names_are_taken_apart() {
        let unsigned = |bits| ChType::Integer { bits, signed: false };
        let cases = [
            ("UInt8", unsigned(8)),
            ("Int256", ChType::Integer { bits: 256, signed: true }),
            ("Nullable(UInt64)", nullable(unsigned(64))),
            ("LowCardinality(Nullable(String))", nullable(ChType::Text)),
            ("Decimal(18, 4)", ChType::Decimal { precision: 18, scale: 4 }),
            ("Decimal256(3)", ChType::Decimal { precision: 76, scale: 3 }),
            ("DateTime('Europe/Amsterdam')", ChType::DateTime),
            ("DateTime64(9, 'UTC')", ChType::DateTime64 { scale: 9 }),
            ("Enum8('a)' = 1, 'it\\'s' = -2)", ChType::Enum),
            ("FixedString(16)", ChType::Fixed),
            ("Array(Nullable(Date32))", array(nullable(ChType::Date))),
            ("SimpleAggregateFunction(sum, Float64)", ChType::Float64),
            ("SimpleAggregateFunction(groupArrayArray(10), Array(String))", array(ChType::Text)),
            ("AggregateFunction(quantiles(0.5, 0.9), UInt64)", ChType::State),
            ("Variant(String, UInt64)", ChType::Either),
            ("Dynamic(max_types=4)", ChType::Either),
            ("JSON(max_dynamic_paths=8, a.b UInt32, SKIP `x(`)", ChType::Json),
            ("Object('json')", ChType::Json),
            ("IntervalDay", ChType::Interval),
            ("Nullable(Nothing)", ChType::Nothing),
            ("Point", ChType::Shape),
            (
                "Map(LowCardinality(String), Array(UInt8))",
                ChType::Map(Box::new(ChType::Text), Box::new(array(unsigned(8)))),
            ),
            (
                "Tuple(a UInt8, `b c` String, \"d\"\"e\" Date)",
                ChType::Tuple(vec![
                    (Some("a".to_owned()), unsigned(8)),
                    (Some("b c".to_owned()), ChType::Text),
                    (Some("d\"e".to_owned()), ChType::Date),
                ]),
            ),
            ("Tuple(UInt8, Array(String))", ChType::Tuple(vec![(None, unsigned(8)), (None, array(ChType::Text))])),
            ("Nested(k String)", array(ChType::Tuple(vec![(Some("k".to_owned()), ChType::Text)]))),
        ];
        for (text, expected) in cases {
            assert_eq!(ChType::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "UInt7",
            "Quantum",
            "Array(",
            "Array(UInt8",
            "Array(UInt8))",
            "Decimal(80, 2)",
            "Decimal(2, 3)",
            "Tuple(a)",
            "Map(String)",
            "DateTime64(12)",
            "Enum8('a",
        ] {
            assert!(ChType::parse(text).is_err(), "{text}");
        }
        let deep = "Array(".repeat(10_000) + "UInt8" + &")".repeat(10_000);
        assert_eq!(ChType::parse(&deep), Err(TypeError::Malformed));
    }

    proptest! {
        #![proptest_config(crate::regressions::kept())]

        #[test]
        fn no_text_breaks_it(text in "[A-Za-z0-9(),'`\" =\\\\]{0,60}") {
            let _ = ChType::parse(&text);
        }
    }
}
