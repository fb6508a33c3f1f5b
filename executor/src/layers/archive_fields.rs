//! The encodings inside of tar headers: numbers, times, PAX records.

use rustix::fs::Timespec;

/// Reads a header's number: octal digits padded with spaces and NULs, or big-endian binary with the
/// first bit set. An empty field is 0, as GNU tar and Go read it.
///
/// `None` if it is neither, or does not fit.
pub(super) fn number(field: &[u8]) -> Option<i64> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => {
            // Two's complement over all bits but the marker: the next bit is the sign.
            let negative = first & 0x40 != 0;
            let top = i128::from(first & 0x7f) - if negative { 0x80 } else { 0 };
            let value = rest.iter().try_fold(top, |value, byte| {
                value.checked_mul(256)?.checked_add(i128::from(*byte))
            })?;
            i64::try_from(value).ok()
        }
        Some(_) | None => {
            let is_padding = |byte: &u8| *byte == b' ' || *byte == 0;
            let start = field.iter().position(|byte| !is_padding(byte));
            let digits = field.get(start.unwrap_or(field.len())..)?;
            let end = digits.iter().position(is_padding).unwrap_or(digits.len());
            let (digits, padding) = digits.split_at_checked(end)?;
            if !padding.iter().all(is_padding) {
                return None;
            }
            digits.iter().try_fold(0_i64, |value, byte| match byte {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

/// Reads decimal seconds with an optional fraction, possibly negative, as PAX writes times.
pub(super) fn pax_time(text: &[u8]) -> Option<Timespec> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let negative = whole.starts_with('-');
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0_i64, |nanos, digit| nanos * 10 + i64::from(digit - b'0'));
    let mut time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos,
    };
    if negative && nanos > 0 {
        // -1.25 is 0.75 after -2.
        time.tv_sec = seconds.checked_sub(1)?;
        time.tv_nsec = 1_000_000_000 - nanos;
    }
    Some(time)
}

/// Splits PAX data into its records `LENGTH KEY=VALUE\n`; `None` if a record is malformed.
///
/// The length alone ends a record: a value may hold any byte, newlines included, and binary
/// attributes do.
pub(super) fn pax_records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(data.get(..space)?).ok()?.parse().ok()?;
        let record = data.get(space.checked_add(1)?..length)?;
        let record = record.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let (key, value) = record.split_at_checked(equals)?;
        records.push((key, value.get(1..)?));
        data = data.get(length..)?;
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"12345678", None),
            (b"644 7\0\0\0", None),
            (b"-0000001", None),
            (b"\x80\0\0\0\x77\x35\x94\0", Some(2_000_000_000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        ] {
            assert_eq!(number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn times_keep_their_fraction_and_their_sign() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("1700000000.25", Some((1_700_000_000, 250_000_000))),
            ("1.1234567899", Some((1, 123_456_789))),
            ("-1.25", Some((-2, 750_000_000))),
            ("-0.25", Some((-1, 750_000_000))),
            ("1.2.3", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            let time = pax_time(text.as_bytes()).map(|time| (time.tv_sec, time.tv_nsec));
            assert_eq!(time, expected, "{text}");
        }
    }

    #[test]
    fn a_record_ends_where_its_length_says() {
        let data = b"12 a=b\nc=de\n6 k=v\n";
        assert_eq!(
            pax_records(data),
            Some(vec![(&b"a"[..], &b"b\nc=de"[..]), (b"k", b"v")])
        );
        for malformed in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"x a=b\n",
            b"6 abc\n",
            b"0 a=b\n",
            b"1 a=b\n",
        ] {
            assert_eq!(pax_records(malformed), None, "{malformed:?}");
        }
    }
}
