//! Amounts of CPU and memory, as Kubernetes writes them.

use std::{fmt, str::FromStr};

/// A positive amount, such as `100m`, `0.5`, `64Mi` or `1e6`. Kept as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    text: Box<str>,
    amount: f64,
}

impl Quantity {
    /// An amount that is written in this program.
    pub(crate) fn of(text: &'static str) -> Self {
        let Ok(quantity) = text.parse() else { unreachable!("{text} is written here") };
        quantity
    }

    /// How much it is, in CPUs or bytes; near enough to compare.
    #[must_use]
    pub fn amount(&self) -> f64 {
        self.amount
    }
}

impl FromStr for Quantity {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        amount(text)
            .filter(|amount| amount.is_finite() && *amount > 0.0)
            .map(|amount| Self { text: text.into(), amount })
            .ok_or(InvalidQuantity(()))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a quantity, such as 100m or 64Mi")]
pub struct InvalidQuantity(());

const SUFFIXES: &[(&str, f64)] = &[
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("", 1.0),
];

fn amount(text: &str) -> Option<f64> {
    let (number, factor) =
        SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)))?;
    // Rust's numbers may also be "inf", "NaN" or begin with a sign.
    let exponent = *factor == 1.0;
    let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.' || (exponent && matches!(byte, b'e' | b'E'));
    let begins = number.starts_with(|first: char| first.is_ascii_digit());
    (begins && number.bytes().all(plain)).then(|| number.parse().ok()).flatten().map(|n: f64| n * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_compared_whatever_their_suffix() {
        let amount = |text: &str| text.parse::<Quantity>().unwrap().amount();
        assert_eq!(amount("64Mi"), 67_108_864.0);
        assert_eq!(amount("1e6"), amount("1M"));
        assert!((amount("500m") - 0.5).abs() < 1e-9);
        assert_eq!("0.5".parse::<Quantity>().unwrap().to_string(), "0.5");
    }

    #[test]
    fn what_kubernetes_would_refuse_is_refused() {
        for bad in ["", "0", "inf", "NaN", "+1", "-1", ".", "1e6Mi", "1MiB", "1 Mi", "Mi", "1e", "1..2"] {
            assert!(bad.parse::<Quantity>().is_err(), "{bad}");
        }
    }
}
