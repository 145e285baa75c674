//! Numbers for people.

/// Exact below a million, then three digits and an SI suffix: `999,999`, `12.3M`.
pub(super) fn count(number: u64) -> String {
    if number < 1_000_000 {
        return grouped(number);
    }
    let (value, unit) = scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"]);
    format!("{}{unit}", three_digits(value))
}

/// IEC: `512 B`, `1.50 KiB`, `117 MiB`.
pub(super) fn bytes(number: u64) -> String {
    if number < 1024 {
        return format!("{number} B");
    }
    let (value, unit) = scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]);
    format!("{} {unit}", three_digits(value))
}

/// A part of one as percent: `33.3%`. What is not nothing does not look like nothing.
pub(super) fn percent(part: f64) -> String {
    if part > 0.0 && part < 0.0005 { "<0.1%".to_owned() } else { format!("{:.1}%", part * 100.0) }
}

/// The two largest units: `3d 4h`, `12m 5s`, `9s`.
pub(super) fn duration(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
    let Some(first) = units.iter().position(|(size, _)| seconds >= *size) else { return "0s".to_owned() };
    let (size, unit) = units[first];
    let next = units.get(first + 1).map(|(smaller, unit)| (seconds % size / smaller, unit));
    match next {
        Some((rest, unit_of_rest)) if rest > 0 => format!("{}{unit} {rest}{unit_of_rest}", seconds / size),
        Some(_) | None => format!("{}{unit}", seconds / size),
    }
}

fn grouped(number: u64) -> String {
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

fn scaled(number: u64, step: f64, units: &[&'static str]) -> (f64, &'static str) {
    let mut value = number as f64;
    let mut unit = "";
    for (index, name) in units.iter().enumerate() {
        unit = name;
        // 999.5 would be printed as 1000.
        if value < step - 0.5 || index + 1 == units.len() {
            break;
        }
        value /= step;
    }
    (value, unit)
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_keep_three_digits() {
        assert_eq!(
            [0, 999, 12_345, 999_999, 1_234_567, 999_999_999].map(count),
            ["0", "999", "12,345", "999,999", "1.23M", "1.00G"]
        );
        assert_eq!([0, 1023, 1536, 123_456_700, 1 << 40].map(bytes), ["0 B", "1023 B", "1.50 KiB", "118 MiB", "1.00 TiB"]);
        assert_eq!(count(u64::MAX), "18.4E");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn shares_and_durations() {
        assert_eq!([1.0, 1.0 / 3.0, 0.0, 0.0001].map(percent), ["100.0%", "33.3%", "0.0%", "<0.1%"]);
        assert_eq!([0, 9, 725, 3600, 273_600].map(duration), ["0s", "9s", "12m 5s", "1h", "3d 4h"]);
    }
}
