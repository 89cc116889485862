//! The fuzz targets' bodies on a stable compiler: seeds that are good, changed byte by byte, for a few seconds each.
//!
//! 1. Nothing panics, and whatever else a body asserts holds.
//! 2. No input makes a body hold more memory than a fixed amount and a multiple of the input's length.
//!
//! `SILTSTONE_FUZZ_SECONDS` (2 by default) is how long each runs, `SILTSTONE_FUZZ_SEED` where the dice start. A failing
//! input is printed as hexadecimal digits, to be put among the seeds once it is mended.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
// A global allocator cannot be written otherwise.
#![allow(unsafe_code)]

#[path = "../fuzz/bodies/avro.rs"]
mod avro;
#[path = "../fuzz/bodies/json.rs"]
mod json;
#[path = "../fuzz/bodies/protobuf.rs"]
mod protobuf;
#[path = "../fuzz/bodies/spec.rs"]
mod spec;
#[path = "../fuzz/bodies/wire.rs"]
mod wire;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

const INPUT_BYTES_MAX: usize = 4_096;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// Counts what the present thread holds; the bodies work on one thread.
struct Counting;

fn count(bytes: isize) {
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn size(layout: Layout) -> isize {
    isize::try_from(layout.size()).unwrap_or(isize::MAX)
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size(layout));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size(layout));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that a run of `body` held beyond what was held before.
fn peak_of(body: impl FnOnce()) -> isize {
    let before = HELD.get();
    PEAK.set(before);
    body();
    PEAK.get() - before
}

/// Dice that fall the same way each time (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.roll() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }
}

/// Bytes at which decoders turn: signs, lengths, ends of ranges, brackets, quotes.
const ODD: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xfe\xff\xff\xff\x0f",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\u",
    b"\\ud800",
    b"-",
    b"1e999",
    b"0.1",
    b"null",
    b",",
    b":",
    b"\n",
    b"  ",
    b"&a ",
    b"*a",
    b"<<: ",
    b"- ",
    b"---\n",
    b"!!str ",
    b"|\n",
    b"${A}",
    b"\xef\xbb\xbf",
];

fn change(dice: &mut Dice, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(6) {
        let at = dice.below(input.len() + 1);
        let end = (at + dice.below(24)).min(input.len());
        match dice.below(7) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = u8::try_from(dice.below(256)).unwrap(),
            2 => drop(input.drain(at..end)),
            3 => {
                let again = input[at..end].to_vec();
                let to = dice.below(input.len() + 1);
                input.splice(to..to, again.into_iter().cycle().take((end - at) * (1 + dice.below(8))));
            }
            4 => {
                let odd = ODD[dice.below(ODD.len())];
                input.splice(at..at, odd.iter().copied());
            }
            5 => input.truncate(at),
            _ => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                let to = (from + dice.below(64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

/// Runs `body` on changed seeds. `fixed` and `per_byte` bound what it may hold.
fn fuzz(body: fn(&[u8]), seeds: &[Vec<u8>], fixed: usize, per_byte: usize) {
    let setting = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = Duration::from_secs(setting("SILTSTONE_FUZZ_SECONDS").unwrap_or(2));
    let mut dice = Dice(setting("SILTSTONE_FUZZ_SEED").unwrap_or(7));
    // What is made once, for all inputs.
    seeds.iter().for_each(|seed| body(seed));
    let (begun, mut inputs, mut most) = (Instant::now(), 0_u64, 0);
    while begun.elapsed() < seconds {
        let input = if inputs < seeds.len() as u64 {
            seeds[usize::try_from(inputs).unwrap()].clone()
        } else {
            change(&mut dice, seeds)
        };
        let started = Instant::now();
        let peak = catch_unwind(AssertUnwindSafe(|| peak_of(|| body(&input))));
        let shown = || {
            input.iter().fold(String::new(), |mut text, byte| {
                write!(text, "{byte:02x}").unwrap();
                text
            })
        };
        let peak = usize::try_from(peak.unwrap_or_else(|_| panic!("input {}", shown()))).unwrap();
        let allowed = fixed + per_byte * input.len();
        assert!(peak <= allowed, "{peak} bytes held of {allowed} allowed, input {}", shown());
        assert!(started.elapsed() < Duration::from_secs(5), "slow input {}", shown());
        most = most.max(peak);
        inputs += 1;
    }
    assert!(inputs > 100, "only {inputs} inputs");
    eprintln!("{inputs} inputs, at most {most} bytes held");
}

fn bytes(seeds: &[&[u8]]) -> Vec<Vec<u8>> {
    seeds.iter().map(|seed| seed.to_vec()).collect()
}

#[test]
fn avro_bytes_and_schemas() {
    // The first byte chooses: a multiple of four reads a schema, else a record.
    assert!(avro::takes(avro::GOOD) && avro::takes(avro::FULL));
    let mut seeds: Vec<Vec<u8>> =
        [avro::GOOD, avro::FULL].iter().map(|record| [&[1], *record].concat()).collect();
    seeds.push([&[0], avro::EVERY.as_bytes()].concat());
    fuzz(avro::run, &seeds, 16 << 20, 4_096);
}

#[test]
fn json_bytes() {
    let full = br#"{"a":-9223372036854775808,"b":1,"c":true,"d":1.5e-300,"e":0.1,"f":"12.3456","g":"2024-02-29",
        "h":"23:59:59.999999","i":"2026-01-02T03:04:05.678901","j":"2026-01-02T03:04:05Z","k":"AAEC","n":"AAEC",
        "s":"\u00e9\ud834\udd1e \\ \"","l":[{"x":"y","y":"12345678-9abc-def0-1234-56789abcdef0"},null,{}],
        "m":{"k":1.5,"l":-0.0}, "extra":{"deep":[[[{"a":[1,2,{"b":null}]}]]]}}"#;
    fuzz(json::run, &bytes(&[json::GOOD, full]), 16 << 20, 4_096);
}

#[test]
fn protobuf_bytes_and_schemas() {
    assert!(protobuf::takes(protobuf::GOOD) && protobuf::takes(protobuf::FULL));
    let mut seeds: Vec<Vec<u8>> =
        [protobuf::GOOD, protobuf::FULL].iter().map(|record| [&[2], *record].concat()).collect();
    // Larger inputs are cut, so that a schema must be short.
    let small = "syntax = \"proto3\"; package p; message M { optional int32 a = 1 [packed = false]; \
                 map<string, M.In> b = 2; oneof o { string c = 3; double d = 4; } repeated E e = 5; \
                 message In { reserved 2, 5 to 9; bytes x = 1; } enum E { Z = 0; option allow_alias = true; Y = 0; } \
                 google.protobuf.Value v = 6; } import \"google/protobuf/struct.proto\"; \
                 service S { rpc R(M) returns (stream M) {} } option java_package = 'j';";
    seeds.push([&[0], small.as_bytes()].concat());
    seeds.push(vec![1, 4, 2, 0, 8]);
    fuzz(protobuf::run, &seeds, 16 << 20, 4_096);
}

#[test]
fn wire_frames() {
    fuzz(wire::run, &bytes(&[b"\0\0\0\0\x07body", b"\0\0\0\0\x01", b"\x01abc", b""]), 64 << 10, 16);
}

#[test]
fn spec_texts() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../table-specs");
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    seeds.sort();
    // Aliases of aliases, each ten times as large as the one before.
    let laughs = (1..9).fold("a0: &a0 x\n".to_owned(), |text, level| {
        let ten = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("{text}a{level}: &a{level} [{ten}]\n")
    });
    seeds.push(laughs.into_bytes());
    assert!(seeds.len() > 5);
    fuzz(spec::run, &seeds, 64 << 20, 4_096);
}
