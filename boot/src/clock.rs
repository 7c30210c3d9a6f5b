//! Clock arithmetic: the CMOS clock's date as seconds, and a clock's rate from two readings.

/// A reading of the CMOS clock's registers, as they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CmosTime {
    /// Seconds register.
    pub second: u8,
    /// Minutes register.
    pub minute: u8,
    /// Hours register; bit 7 means afternoon in 12-hour mode.
    pub hour: u8,
    /// Day of the month.
    pub day: u8,
    /// Month, from 1.
    pub month: u8,
    /// Year of the century.
    pub year: u8,
    /// Century, or 0 where the machine has no such register.
    pub century: u8,
    /// Status register B: bit 1 24-hour mode, bit 2 binary instead of BCD.
    pub status_b: u8,
}

impl CmosTime {
    /// Seconds since 1970, or `None` when the registers hold no date.
    #[must_use]
    pub fn unix_seconds(self) -> Option<u64> {
        let binary = self.status_b & 4 != 0;
        let number = |raw: u8| {
            if binary {
                Some(u64::from(raw))
            } else {
                let (tens, ones) = (raw >> 4, raw & 15);
                (tens < 10 && ones < 10).then(|| u64::from(tens) * 10 + u64::from(ones))
            }
        };
        let afternoon = self.hour & 0x80 != 0;
        let mut hour = number(self.hour & 0x7f)?;
        if self.status_b & 2 == 0 {
            hour = hour % 12 + if afternoon { 12 } else { 0 };
        }
        let year = number(self.year)?;
        let year = match number(self.century) {
            Some(century @ 19..=29) => century * 100 + year,
            _ => year + if year < 70 { 2000 } else { 1900 },
        };
        let (minute, second) = (number(self.minute)?, number(self.second)?);
        let (month, day) = (number(self.month)?, number(self.day)?);
        let plausible = hour < 24 && minute < 60 && second < 61;
        if !plausible || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        Some(((days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second)
    }
}

/// Days from the first of January 1970 to the first of a month, by the Gregorian calendar.
fn days_before(year: u64, month: u64) -> u64 {
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let before = usize::try_from(month - 1)
        .ok()
        .and_then(|i| BEFORE_MONTH.get(i))
        .unwrap_or(&0);
    (year - 1970) * 365
        + (leap_days(year - 1) - leap_days(1969))
        + before
        + u64::from(is_leap && month > 2)
}

/// Ticks per millisecond of a clock that made `ticks` while a reference of `hz` made `elapsed`.
#[must_use]
pub fn khz(ticks: u64, elapsed: u64, hz: u64) -> Option<u64> {
    let scaled = u128::from(ticks) * u128::from(hz);
    let divisor = u128::from(elapsed) * 1000;
    let rounded = (scaled + divisor / 2).checked_div(divisor)?;
    u64::try_from(rounded).ok().filter(|khz| *khz != 0)
}

/// Microseconds that `ticks` of a clock of `khz` take; 0 while its rate is unknown.
#[must_use]
pub fn micros(ticks: u64, khz: u64) -> u64 {
    let micros = (u128::from(ticks) * 1000)
        .checked_div(u128::from(khz))
        .unwrap_or(0);
    u64::try_from(micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bcd(date: [u8; 6], century: u8) -> CmosTime {
        let [year, month, day, hour, minute, second] = date;
        CmosTime {
            second,
            minute,
            hour,
            day,
            month,
            year,
            century,
            status_b: 2,
        }
    }

    #[test]
    fn dates_become_seconds() {
        let at = |date, century| bcd(date, century).unix_seconds();
        assert_eq!(at([0x70, 1, 1, 0, 0, 0], 0x19), Some(0));
        assert_eq!(
            at([0x26, 0x11, 0x22, 0x09, 0x36, 0x04], 0x20),
            Some(1_795_340_164)
        );
        assert_eq!(
            at([0x26, 0x11, 0x22, 0x09, 0x36, 0x04], 0),
            Some(1_795_340_164)
        );
        assert_eq!(at([0x00, 0x03, 0x01, 0, 0, 0], 0x20), Some(951_868_800));
        assert_eq!(
            at([0x24, 0x02, 0x29, 0x23, 0x59, 0x59], 0x20),
            Some(1_709_251_199)
        );
    }

    #[test]
    fn twelve_hour_and_binary_clocks_are_understood() {
        let mut noon = bcd([0x26, 0x11, 0x22, 0x92, 0, 0], 0x20);
        noon.status_b = 0;
        let mut midnight = noon;
        midnight.hour = 0x12;
        assert_eq!(
            noon.unix_seconds().unwrap() - midnight.unix_seconds().unwrap(),
            12 * 3600
        );
        let mut binary = bcd([26, 11, 22, 9, 36, 4], 20);
        binary.status_b = 6;
        assert_eq!(binary.unix_seconds(), Some(1_795_340_164));
    }

    #[test]
    fn rubbish_is_no_date() {
        assert_eq!(bcd([0xff; 6], 0xff).unix_seconds(), None);
        assert_eq!(bcd([0x26, 0x13, 1, 0, 0, 0], 0x20).unix_seconds(), None);
        assert_eq!(CmosTime::default().unix_seconds(), None);
    }

    #[test]
    fn rates_are_rounded_and_never_zero() {
        assert_eq!(khz(35_795, 3_580, 3_579_545), Some(35_790));
        assert_eq!(khz(1, 0, 3_579_545), None);
        assert_eq!(khz(0, 10, 3_579_545), None);
        assert_eq!(khz(u64::MAX, 1, u64::MAX), None);
    }
}
