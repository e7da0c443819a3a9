//! Days as people write them in files, `2026-12-31`: whether there is such a day, and how many days lie between two.

use std::fmt;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
}

impl Date {
    /// `2026-12-31` and nothing else; `None` for a day that never comes.
    pub fn parse(text: &str) -> Option<Date> {
        let digits = |range: std::ops::Range<usize>| {
            let part = text.get(range)?;
            part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok())?
        };
        let dashes = text.len() == 10 && text.get(4..5) == Some("-") && text.get(7..8) == Some("-");
        let date = Date { year: digits(0..4)?, month: digits(5..7)?, day: digits(8..10)? };
        (dashes && (1..=12).contains(&date.month) && (1..=date.month_length()).contains(&date.day)).then_some(date)
    }

    /// Days since the first of March of the year 0 (H. Hinnant, "chrono-compatible low-level date algorithms"): a year
    /// that begins in March has its leap day last.
    fn ordinal(self) -> i64 {
        let year = i64::from(self.year) - i64::from(self.month <= 2);
        let month = i64::from((self.month + 9) % 12);
        let day_of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
    }

    /// From the other day to this one.
    pub fn days_since(self, other: Date) -> i64 {
        self.ordinal() - other.ordinal()
    }

    fn month_length(self) -> u32 {
        let leap = self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400));
        match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// Whether this is a time in UTC as RFC 3339 has it: `2026-11-23T19:15:00Z`, with or without a fraction of the second.
pub fn is_timestamp(text: &str) -> bool {
    let (Some(date), Some(time)) = (text.get(..10), text.get(10..)) else { return false };
    let Some(time) = time.strip_prefix('T').and_then(|time| time.strip_suffix('Z')) else { return false };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let parts: Vec<&str> = clock.split(':').collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let below = |part: &str, limit: u32| part.len() == 2 && digits(part) && part.parse().is_ok_and(|n: u32| n < limit);
    // 60: a leap second.
    let clock = matches!(parts.as_slice(), [h, m, s] if below(h, 24) && below(m, 60) && below(s, 61));
    Date::parse(date).is_some() && clock && digits(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> Date {
        Date::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn only_days_that_come() {
        for text in ["2026-12-31", "2028-02-29", "2000-02-29", "0001-01-01"] {
            assert_eq!(date(text).to_string(), text);
        }
        let wrong = [
            "",
            "2026-2-3",
            "2026-02-29",
            "1900-02-29",
            "2026-13-01",
            "2026-00-01",
            "2026-04-31",
            "2026-01-00",
            "2026/01/01",
            "2026-01-01 ",
            "+026-01-01",
            "２026-01-1",
            "2026-01-aé",
            "20260101",
        ];
        for text in wrong {
            assert_eq!(Date::parse(text), None, "{text}");
        }
    }

    /// Differences as `date -d` has them.
    #[test]
    fn days_between() {
        assert_eq!(date("1970-01-01").days_since(date("1900-01-01")), 25_567);
        assert_eq!(date("2026-11-23").days_since(date("1970-01-01")), 20_780);
        assert_eq!(date("2028-03-01").days_since(date("2028-02-28")), 2);
        assert_eq!(date("2100-03-01").days_since(date("2100-02-28")), 1);
        assert_eq!(date("2026-01-01").days_since(date("2027-01-01")), -365);
    }

    #[test]
    fn the_order_of_time_is_the_order_of_the_text() {
        let days = ["0099-12-31", "2025-12-31", "2026-01-01", "2026-01-02", "2026-02-01", "2026-10-01"];
        for (earlier, later) in days.iter().zip(&days[1..]) {
            assert!(earlier < later && date(earlier) < date(later));
            assert!(date(later).days_since(date(earlier)) > 0);
        }
    }

    #[test]
    fn timestamps() {
        for text in ["2026-11-23T19:15:00Z", "2026-11-23T19:15:00.123456Z", "2016-12-31T23:59:60Z"] {
            assert!(is_timestamp(text), "{text}");
        }
        let wrong = [
            "",
            "2026-11-23",
            "2026-11-23T19:15Z",
            "2026-11-23T24:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-23T19:15:00",
            "2026-11-23T19:15:00+01:00",
            "2026-11-23T19:15:00.Z",
            "2026-11-23T+1:15:00Z",
        ];
        for text in wrong {
            assert!(!is_timestamp(text), "{text}");
        }
    }
}
