//! Exact readings of a number's text.

use siltstone_protocol::RejectReason;

/// A number: `[-]integer[.fraction]`, times ten to the power of `exponent`.
#[derive(Clone, Copy)]
pub(super) struct Number<'a> {
    /// All of it, as written.
    pub(super) text: &'a str,
    pub(super) negative: bool,
    pub(super) integer: &'a str,
    pub(super) fraction: &'a str,
    pub(super) exponent: i64,
}

impl<'a> Number<'a> {
    /// A decimal written in a string: as in JSON, but with a plus sign and leading zeros allowed.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            None => (unsigned, 0),
            Some((mantissa, exponent)) => {
                let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
                if !all_digits(digits) {
                    return None;
                }
                let bounded = digits
                    .bytes()
                    .fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1_000_000_000));
                (mantissa, if exponent.starts_with('-') { -bounded } else { bounded })
            }
        };
        let (integer, fraction) = match mantissa.split_once('.') {
            None => (mantissa, ""),
            Some((_, "")) => return None,
            Some(parts) => parts,
        };
        (all_digits(integer) && (fraction.is_empty() || all_digits(fraction))).then_some(Self {
            text,
            negative,
            integer,
            fraction,
            exponent,
        })
    }

    /// The value times ten to the power of `scale`, exactly; `OutOfRange` when it is no whole number or too
    /// large.
    pub(super) fn unscaled(&self, scale: u8) -> Result<i128, RejectReason> {
        let shift = self.exponent - self.fraction.len() as i64 + i64::from(scale);
        let digits = || self.integer.bytes().chain(self.fraction.bytes()).map(|byte| i128::from(byte - b'0'));
        let count = self.integer.len() + self.fraction.len();
        // A negative shift cuts digits off the end, which must be zeros.
        let dropped = usize::try_from(-shift.min(0)).unwrap_or(usize::MAX);
        let kept = count.saturating_sub(dropped);
        if digits().skip(kept).any(|digit| digit != 0) {
            return Err(RejectReason::OutOfRange);
        }
        let mut value = 0i128;
        for digit in digits().take(kept) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(digit))
                .ok_or(RejectReason::OutOfRange)?;
        }
        if shift > 0 && value != 0 {
            let power = u32::try_from(shift).ok().and_then(|shift| 10i128.checked_pow(shift));
            value = power.and_then(|power| value.checked_mul(power)).ok_or(RejectReason::OutOfRange)?;
        }
        Ok(if self.negative { -value } else { value })
    }

    /// The value, when it is a whole number that fits: `1.0` and `1e3` are.
    pub(super) fn whole(&self) -> Result<i64, RejectReason> {
        i64::try_from(self.unscaled(0)?).map_err(|_| RejectReason::OutOfRange)
    }

    /// The nearest double; `OutOfRange` past the largest.
    #[inline]
    pub(super) fn double(&self) -> Result<f64, RejectReason> {
        match self.short_double() {
            Some(value) => Ok(value),
            None => {
                self.text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or(RejectReason::OutOfRange)
            }
        }
    }

    /// Up to 15 digits and a small power of ten are both exact doubles, so that one rounded division is the
    /// nearest double (Clinger's fast path).
    #[inline]
    fn short_double(&self) -> Option<f64> {
        const POWERS: [f64; 23] = [
            1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
            1e18, 1e19, 1e20, 1e21, 1e22,
        ];
        if self.integer.len() + self.fraction.len() > 15 || self.exponent != 0 {
            return None;
        }
        let digits = self.integer.bytes().chain(self.fraction.bytes());
        let mantissa = digits.fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let value = mantissa as f64 / POWERS.get(self.fraction.len())?;
        Some(if self.negative { -value } else { value })
    }

    /// The nearest float, in one rounding; `OutOfRange` past the largest.
    pub(super) fn float(&self) -> Result<f32, RejectReason> {
        self.text.parse().ok().filter(|value: &f32| value.is_finite()).ok_or(RejectReason::OutOfRange)
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
