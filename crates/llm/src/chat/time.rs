//! Dates in templates, in universal time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A time as `strftime` of Python spells it in the C locale; for what it has no letter, the letter.
pub(super) fn strftime(format: &str, seconds: u64) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut letter = chars.next();
        let bare = letter == Some('-');
        if bare {
            letter = chars.next();
        }
        let shown = letter.and_then(|letter| field(letter, seconds));
        let Some(shown) = shown else {
            return Err(letter.map_or(String::new(), String::from));
        };
        out += if bare { unfilled(&shown) } else { &shown };
    }
    Ok(out)
}

/// A number without what fills it.
fn unfilled(shown: &str) -> &str {
    let short = shown.trim_start_matches(['0', ' ']);
    if short.is_empty() && !shown.is_empty() { "0" } else { short }
}

fn field(letter: char, seconds: u64) -> Option<String> {
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (weekday, month_name) = ((days + 4) % 7, MONTHS[month - 1]);
    let day_name = DAYS[weekday as usize];
    let several = |format: &str| strftime(format, seconds).ok();
    Some(match letter {
        'Y' => year.to_string(),
        'y' => format!("{:02}", year % 100),
        'm' => format!("{month:02}"),
        'B' => month_name.to_string(),
        'b' | 'h' => month_name[..3].to_string(),
        'd' => format!("{day:02}"),
        'e' => format!("{day:2}"),
        'j' => format!("{:03}", day_of_year(days, year)),
        'A' => day_name.to_string(),
        'a' => day_name[..3].to_string(),
        'w' => weekday.to_string(),
        'u' => (if weekday == 0 { 7 } else { weekday }).to_string(),
        'H' => format!("{hour:02}"),
        'I' => format!("{:02}", (hour + 11) % 12 + 1),
        'M' => format!("{minute:02}"),
        'S' => format!("{second:02}"),
        'f' => "000000".to_string(),
        'p' => (if hour < 12 { "AM" } else { "PM" }).to_string(),
        's' => seconds.to_string(),
        // A time without a zone, as templates get it from Python.
        'Z' | 'z' => String::new(),
        'F' => return several("%Y-%m-%d"),
        'T' | 'X' => return several("%H:%M:%S"),
        'R' => return several("%H:%M"),
        'D' | 'x' => return several("%m/%d/%y"),
        'c' => return several("%a %b %e %H:%M:%S %Y"),
        'n' => "\n".to_string(),
        't' => "\t".to_string(),
        '%' => "%".to_string(),
        _ => return None,
    })
}

/// Counted from 1 on.
fn day_of_year(days: u64, year: u64) -> u64 {
    let back = (1..=366).find(|back| days < *back || civil(days - back).0 != year);
    back.unwrap_or(1)
}

/// Year, month and day of a number of days since 1970 (Howard Hinnant, "chrono-compatible
/// low-level date algorithms").
fn civil(days: u64) -> (u64, usize, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month as usize, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::strftime;

    #[test]
    fn dates() {
        for (format, seconds, expected) in [
            (
                "%d %B %Y, %d %b, %Y-%m-%d %H:%M:%S %%",
                0,
                "01 January 1970, 01 Jan, 1970-01-01 00:00:00 %",
            ),
            ("%F", 1_709_164_800, "2024-02-29"),
            ("%F", 4_102_444_799, "2099-12-31"),
            ("%A %a %-d|%e|%j|%-j|%y|%w%u", 1_709_164_800, "Thursday Thu 29|29|060|60|24|44"),
            ("%-d|%e|%j|%A|%u", 1_704_067_200 + 6 * 86_400, "7| 7|007|Sunday|7"),
            ("%j", 1_735_603_200, "366"),
            ("%I:%M %p|%-I|%-M|%-H", 1_709_164_800, "12:00 AM|12|0|0"),
            ("%I %p %T [%Z]", 1_709_164_800 + 13 * 3600 + 62, "01 PM 13:01:02 []"),
        ] {
            assert_eq!(strftime(format, seconds).as_deref(), Ok(expected), "{format}");
        }
        for (format, letter) in [("%Q", "Q"), ("a%", ""), ("%-", "")] {
            assert_eq!(strftime(format, 0), Err(letter.to_string()));
        }
    }
}
