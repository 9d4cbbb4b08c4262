//! The data of the demonstration: users and orders of a shop, made from their number and
//! version alone, so that any of them can be made again and compared.

use std::fmt::Write;

/// Words that stand in every record, or in every one of its kind, and in no random bytes:
/// the shortest has 13.
pub(super) const MARKERS: [&str; 3] = ["@mail.example", "\"amount_cents\":", "\"iban\":\"XX99"];

const FIRST: [&str; 16] = [
    "Ada", "Bela", "Chiara", "Dmitri", "Elif", "Femi", "Greta", "Hiro", "Ines", "Jonas", "Kavya",
    "Lucia", "Mehmet", "Nora", "Olu", "Petra",
];
const LAST: [&str; 16] = [
    "Almeida",
    "Berg",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Hansen",
    "Ito",
    "Janssen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Novak",
    "Okafor",
    "Petrov",
];
const CITIES: [&str; 8] =
    ["Antwerp", "Bergen", "Coimbra", "Dresden", "Edirne", "Florence", "Ghent", "Haarlem"];
const GOODS: [&str; 8] = [
    "reading lamp",
    "oak shelf",
    "wool blanket",
    "tea kettle",
    "desk chair",
    "wall clock",
    "garden hose",
    "bread knife",
];
/// One record in so many is a user, the others are orders.
const USER_EVERY: u64 = 5;

/// The key of a record.
pub(super) fn key(number: u64) -> String {
    let kind = if number.is_multiple_of(USER_EVERY) { "user" } else { "order" };
    format!("{kind}/{number:010}")
}

/// The number in a key.
pub(super) fn number(key: &[u8]) -> Option<u64> {
    std::str::from_utf8(key).ok()?.split_once('/')?.1.parse().ok()
}

/// The value of a record's version, written into `json`.
pub(super) fn value(number: u64, version: u32, json: &mut String) {
    json.clear();
    let mut dice = Dice(number << 16 ^ u64::from(version));
    let (first, last) = (dice.pick(&FIRST), dice.pick(&LAST));
    let (mail_first, mail_last) = (first.to_lowercase(), last.to_lowercase());
    // OK because a String takes any text.
    let written = if number.is_multiple_of(USER_EVERY) {
        write!(
            json,
            "{{\"id\":{number},\"name\":\"{first} {last}\",\
             \"mail\":\"{mail_first}.{mail_last}.{number}@mail.example\",\"city\":\"{}\",\
             \"iban\":\"XX99{:016}\",\"points\":{},\"version\":{version}}}",
            dice.pick(&CITIES),
            dice.below(10_000_000_000_000_000),
            dice.below(5_000),
        )
    } else {
        write!(
            json,
            "{{\"id\":{number},\"buyer\":\"{mail_first}.{mail_last}.{}@mail.example\",\
             \"item\":\"{}\",\"pieces\":{},\"amount_cents\":{},\"paid\":{},\
             \"note\":\"leave it with {} {} at number {}\",\"version\":{version}}}",
            number - number % USER_EVERY,
            dice.pick(&GOODS),
            1 + dice.below(9),
            100 + dice.below(90_000),
            dice.below(2) == 1,
            dice.pick(&FIRST),
            dice.pick(&LAST),
            1 + dice.below(200),
        )
    };
    let _ = written;
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_json_with_markers_and_differ_by_version() {
        let (mut one, mut two) = (String::new(), String::new());
        for number in 0..500 {
            value(number, 1, &mut one);
            value(number, 2, &mut two);
            assert_ne!(one, two);
            serde_json::from_str::<serde_json::Value>(&one).expect("JSON");
            assert!(MARKERS.iter().filter(|marker| one.contains(**marker)).count() == 2, "{one}");
            assert_eq!(super::number(key(number).as_bytes()), Some(number));
        }
    }
}
