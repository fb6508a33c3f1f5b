//! Quantities and texts as a person reads them.

/// A number of bytes in the largest unit that it reaches, with one decimal.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, bits) in UNITS {
        let size = 1_u128 << bits;
        let tenths = (u128::from(count) * 10 + size / 2) / size;
        if tenths >= 10 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// `1 try`, `2 tries`.
pub(super) fn counted(count: u32, one: &str, many: &str) -> String {
    let noun = if count == 1 { one } else { many };
    format!("{count} {noun}")
}

/// The first line of a text; `…` stands for what was left out.
pub(super) fn headline(text: &str) -> String {
    // Long enough for what is read, short enough for a row that is written at each event.
    const CHARS_MAX: usize = 200;
    let text = text.trim();
    let first_line = text.lines().next().unwrap_or_default();
    let kept: String = first_line.chars().take(CHARS_MAX).collect();
    if kept.len() == text.len() {
        kept
    } else {
        format!("{} …", kept.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal_and_the_largest_unit() {
        for (count, text) in [
            (0, "0 B"),
            (1023, "1.0 KiB"),
            (900, "900 B"),
            (1536, "1.5 KiB"),
            (1 << 20, "1.0 MiB"),
            (1_181_116_006, "1.1 GiB"),
            (2 << 30, "2.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn a_headline_is_one_line() {
        assert_eq!(headline("RUN true"), "RUN true");
        assert_eq!(headline("RUN a\nb\n"), "RUN a …");
        assert_eq!(headline(&"x".repeat(201)), format!("{} …", "x".repeat(200)));
        assert_eq!(headline(""), "");
    }
}
