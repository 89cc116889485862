use std::io::{Cursor, Write};

use futures::executor::block_on;
use siltstone_protocol::RejectReason;

use super::{codec::Codec, *};
use crate::decoder::{Decoder, FileTable, Learned, Pushed, SchemaNeed};

const SCHEMA: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"id","type":"long"},
    {"name":"text","type":["null","string"]},
    {"name":"tags","type":{"type":"map","values":{"type":"array","items":"int"}}},
    {"name":"n","type":[{"type":"fixed","name":"F","size":3},"double",{"type":"enum","name":"E","symbols":["A"]}]}]}"#;
const ROOM: Room = Room::new(8 << 20);
const SYNC: [u8; 16] = *b"0123456789abcdef";

fn long(value: i64) -> Vec<u8> {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [long(bytes.len() as i64), bytes.to_vec()].concat()
}

fn datum(id: i64, value: &[u8]) -> Vec<u8> {
    let n = match id % 3 {
        0 => [long(0), b"abc".to_vec()].concat(),
        1 => [long(1), 1.5_f64.to_le_bytes().to_vec()].concat(),
        _ => [long(2), long(0)].concat(),
    };
    let tags = [long(-1), long(4), text(b"k"), long(1), long(5), long(0), long(0)].concat();
    [long(id), long(1), text(value), tags, n].concat()
}

fn packed(codec: &str, block: &[u8]) -> Vec<u8> {
    match codec {
        "deflate" => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(block).unwrap();
            encoder.finish().unwrap()
        }
        "zstandard" => zstd::encode_all(block, 1).unwrap(),
        "snappy" => {
            let mut sum = flate2::Crc::new();
            sum.update(block);
            let mut bytes = snap::raw::Encoder::new().compress_vec(block).unwrap();
            bytes.extend(sum.sum().to_be_bytes());
            bytes
        }
        _ => block.to_vec(),
    }
}

fn container(codec: &str, blocks: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut file = b"Obj\x01".to_vec();
    file.extend(long(2));
    file.extend(
        [text(b"avro.schema"), text(SCHEMA.as_bytes()), text(b"avro.codec"), text(codec.as_bytes())].concat(),
    );
    file.extend(long(0));
    file.extend(SYNC);
    for (records, block) in blocks {
        let bytes = packed(codec, block);
        file.extend([long(*records), long(bytes.len() as i64), bytes].concat());
        file.extend(SYNC);
    }
    file
}

fn blocks() -> Vec<(i64, Vec<u8>)> {
    let block = |first: i64, records: i64| {
        (records, (first..first + records).flat_map(|id| datum(id, b"some text")).collect())
    };
    vec![block(0, 5), block(5, 1), (0, Vec::new()), block(6, 4)]
}

fn open(bytes: Vec<u8>) -> ContainerFile {
    let mut room = ROOM;
    let input = unpacked(Box::new(Cursor::new(bytes)), Packing::Auto, &mut room).unwrap();
    ContainerFile::open(input, room).unwrap()
}

fn decoder() -> Decoder {
    let text = "source_clusters: [{name: c, bootstrap_brokers: ['b:9092'], schema_registry: {url: 'http://r'}}]\n\
                destination_bucket_url: file:///lake\n\
                tables: [{name: a.b, source_cluster_name: c, source_topic: t, source_format: avro}]\n";
    let spec = siltstone_spec::parse(text, "spec.yaml", &|_| None).unwrap();
    let table = block_on(FileTable::open(&spec.tables[0], None, false)).unwrap();
    let mut decoder = table.decoder(FileFormat::Avro, SCHEMA, None).unwrap();
    let Learned::Evolves(schema) = block_on(decoder.learn(SchemaNeed::Latest, None)).unwrap() else {
        panic!()
    };
    assert!(schema.column("_kafka").is_none());
    decoder.set_table_schema(schema).unwrap();
    assert_eq!(block_on(decoder.learn(SchemaNeed::Latest, None)).unwrap(), Learned::Ready);
    decoder
}

#[test]
fn blocks_of_every_codec_are_read_from_any_record_on() {
    for codec in ["null", "deflate", "zstandard", "snappy"] {
        let bytes = container(codec, &blocks());
        for start in 0..12 {
            let mut file = open(bytes.clone());
            assert_eq!(file.schema(), SCHEMA);
            let mut decoder = decoder();
            let mut ids = Vec::new();
            while let Some(block) = file.next_block(start).unwrap() {
                let mut at = 0;
                for number in block.first..block.first + block.records {
                    let rest = &block.bytes[at..];
                    let length = decoder.skip_first(rest).unwrap();
                    if number >= start {
                        assert_eq!(decoder.push_first(rest), (Pushed::Row, Some(length)));
                        ids.push(number);
                    }
                    at += length;
                }
                assert_eq!(at, block.bytes.len());
            }
            assert_eq!(ids, (start..10).collect::<Vec<_>>(), "{codec} from {start}");
            assert_eq!(decoder.rows(), ids.len());
        }
    }
}

#[test]
fn blocks_are_unpacked_however_they_were_packed() {
    let all: Vec<u8> = (0..200_000_u32).flat_map(|n| (n % 251).to_le_bytes()).collect();
    let unended = |plain: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.flush().unwrap();
        encoder.get_ref().clone()
    };
    let with_size = |plain: &[u8]| zstd::bulk::compress(plain, 1).unwrap();
    let in_frames = |plain: &[u8]| {
        let (first, second) = plain.split_at(plain.len() / 2);
        [with_size(first), with_size(second)].concat()
    };
    let followed = |plain: &[u8]| [packed("deflate", plain), b"sum".to_vec()].concat();
    type Pack<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let ways: [(&str, Pack<'_>); 8] = [
        ("null", &|plain| plain.to_vec()),
        ("snappy", &|plain| packed("snappy", plain)),
        ("deflate", &|plain| packed("deflate", plain)),
        ("deflate", &followed),
        ("deflate", &unended),
        ("zstandard", &|plain| packed("zstandard", plain)),
        ("zstandard", &with_size),
        ("zstandard", &in_frames),
    ];
    for (number, (name, pack)) in ways.iter().enumerate() {
        let (mut codec, mut block) = (Codec::of_name(name.as_bytes()).unwrap(), Vec::new());
        // One file's blocks, one after the other.
        for length in [1_000, all.len(), 0, 7, 100_000, all.len()] {
            let plain = &all[..length];
            let found = codec.unpack(&pack(plain), &mut block, ROOM).unwrap().to_vec();
            assert!(found == plain, "{name}, way {number}: {} bytes of {length}", found.len());
        }
    }
    for (name, bad) in [
        ("deflate", vec![0xff; 50]),
        ("snappy", vec![0xff; 50]),
        ("zstandard", vec![0xff; 50]),
        ("zstandard", packed("zstandard", &all)[..50].to_vec()),
        ("zstandard", with_size(&all)[..50].to_vec()),
    ] {
        let mut codec = Codec::of_name(name.as_bytes()).unwrap();
        let mut block = Vec::new();
        assert!(matches!(codec.unpack(&bad, &mut block, ROOM), Err(FileFault::Damaged(_))), "{name}");
        // The next block of a file that goes on is not touched by it.
        let good = packed(name, b"good");
        assert_eq!(codec.unpack(&good, &mut block, ROOM), Ok(b"good".as_slice()), "{name}");
    }
    let large = with_size(&vec![0; (128 << 20) + 1]);
    let large = Codec::of_name(b"zstandard").unwrap().unpack(&large, &mut Vec::new(), ROOM).map(<[u8]>::len);
    assert!(matches!(large, Err(FileFault::Unsupported(_))), "{large:?}");
}

#[test]
fn a_bad_record_leaves_its_neighbours_alone() {
    let bad = datum(1, b"\xff\xfe");
    let both = [bad.clone(), datum(2, b"good")].concat();
    let mut decoder = decoder();
    let rejected = Pushed::Rejected { reason: RejectReason::InvalidUtf8, schema_id: None };
    assert_eq!(decoder.push_first(&both), (rejected, Some(bad.len())));
    let about = |decoder: &Decoder| decoder.about().map(|about| (about.field.clone(), about.detail.clone()));
    let told = |detail: &str| Some((Some("text".to_owned()), detail.to_owned()));
    assert_eq!(about(&decoder), told("string that is not UTF-8 where string is wanted"));
    assert_eq!(decoder.push_first(&both[bad.len()..]).0, Pushed::Row);
    let cut = Pushed::Rejected { reason: RejectReason::Truncated, schema_id: None };
    assert_eq!(decoder.push_first(&bad[..3]), (cut, None));
    assert_eq!(about(&decoder), told("the record ends before its string does"));
    assert_eq!(decoder.rows(), 1);
}

#[test]
fn damaged_containers_are_told_from_good_ones() {
    let good = container("snappy", &blocks());
    let all = |bytes: Vec<u8>| -> Result<(), FileFault> {
        let mut file = ContainerFile::open(Box::new(Cursor::new(bytes)), ROOM)?;
        while file.next_block(0)?.is_some() {}
        Ok(())
    };
    assert_eq!(all(good.clone()), Ok(()));
    let ends: Vec<usize> =
        (0..blocks().len()).map(|kept| container("snappy", &blocks()[..kept]).len()).collect();
    for cut in 0..good.len() {
        let ended = all(good[..cut].to_vec());
        // Between blocks, and behind the header, a file may end.
        assert_eq!(ended.is_ok(), ends.contains(&cut), "cut at {cut}: {ended:?}");
        assert_ne!(ended, Err(FileFault::Input));
    }
    let mut flipped = good.clone();
    let last = flipped.len() - 30;
    flipped[last] ^= 1;
    assert!(matches!(all(flipped), Err(FileFault::Damaged(_))));
    assert!(matches!(all(container("bzip2", &blocks())), Err(FileFault::Unsupported(_))));
    assert!(matches!(all(b"PAR1".to_vec()), Err(FileFault::Damaged(_))));
}

fn numbered(bytes: &[u8], packing: Packing) -> Result<Vec<(u64, Vec<u8>)>, FileFault> {
    let mut room = ROOM;
    let input = unpacked(Box::new(Cursor::new(bytes.to_vec())), packing, &mut room)?;
    let mut lines = Lines::new(input, room);
    let mut found = Vec::new();
    while let Some((number, line)) = lines.next_line()? {
        found.push((number, line.to_vec()));
    }
    Ok(found)
}

#[test]
fn lines_are_numbered_whatever_ends_them_and_packs_them() {
    let long = vec![b'x'; 600_000];
    let plain = [b"\xef\xbb\xbf{}\r\n\n  \n{\"a\":1}\n".as_slice(), &long, b"\n{\"last\":0}"].concat();
    let wanted: Vec<(u64, Vec<u8>)> =
        vec![(0, b"{}\r".to_vec()), (1, b"{\"a\":1}".to_vec()), (2, long), (3, b"{\"last\":0}".to_vec())];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain[..1000]).unwrap();
    let mut gzip = gzip.finish().unwrap();
    // Files that were appended to have several members.
    let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    second.write_all(&plain[1000..]).unwrap();
    gzip.extend(second.finish().unwrap());
    let zstd = zstd::encode_all(plain.as_slice(), 1).unwrap();
    for (bytes, packing) in [(&plain, Packing::None), (&gzip, Packing::Gzip), (&zstd, Packing::Zstd)] {
        assert_eq!(numbered(bytes, packing).unwrap(), wanted, "{packing:?}");
        assert_eq!(numbered(bytes, Packing::Auto).unwrap(), wanted, "{packing:?} by its bytes");
    }
    assert!(matches!(numbered(&gzip[..gzip.len() - 9], Packing::Auto), Err(FileFault::Damaged(_))));
    assert!(matches!(numbered(&plain, Packing::Gzip), Err(FileFault::Damaged(_))));
    assert_eq!(numbered(b"", Packing::Auto).unwrap(), []);
}

#[test]
fn a_name_tells_a_format() {
    for (name, format) in [
        ("a/b.avro", Some(FileFormat::Avro)),
        ("a/B.JSONL.GZ", Some(FileFormat::Json)),
        ("x.ndjson.zst", Some(FileFormat::Json)),
        ("part-0.snappy.parquet", Some(FileFormat::Parquet)),
        ("part-0", None),
        ("x.csv.gz", None),
    ] {
        assert_eq!(FileFormat::of_name(name), format, "{name}");
    }
}

#[test]
fn what_there_is_no_room_for_says_how_much_it_needs() {
    let large = datum(0, &vec![b'x'; 3 << 20]);
    for (codec, needed) in [("null", 2), ("deflate", 1), ("zstandard", 1), ("snappy", 2)] {
        let bytes = container(codec, &[(1, datum(1, b"small")), (1, large.clone())]);
        let mut file = ContainerFile::open(Box::new(Cursor::new(bytes.clone())), Room::new(2 << 20)).unwrap();
        assert!(file.next_block(0).unwrap().is_some());
        let Err(FileFault::TooLarge { what: "a block of it", bytes: more }) = file.next_block(0) else {
            panic!("{codec}")
        };
        assert!(more > needed << 20, "{codec}: {more}");
        // What is passed over needs no room.
        let mut file = ContainerFile::open(Box::new(Cursor::new(bytes.clone())), Room::new(2 << 20)).unwrap();
        assert!(file.next_block(2).unwrap().is_none());
        let mut file = ContainerFile::open(Box::new(Cursor::new(bytes)), Room::new(10 << 20)).unwrap();
        assert_eq!(file.next_block(1).unwrap().unwrap().bytes, large);
    }
    let line = vec![b'x'; 3 << 20];
    assert!(matches!(numbered(&line, Packing::None), Err(FileFault::TooLarge { what: "a line of it", .. })));
    let mut lines = Lines::new(Box::new(Cursor::new(line.clone())), Room::new(32 << 20));
    assert_eq!(lines.next_line().unwrap().unwrap().1, line);
}

#[test]
fn a_window_is_held_against_the_room_before_anything_is_unpacked() {
    let packed = |window: u32, pledged: bool| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window).unwrap();
        if pledged {
            encoder.set_pledged_src_size(Some(3)).unwrap();
        }
        encoder.write_all(b"{}\n").unwrap();
        encoder.finish().unwrap()
    };
    assert_eq!(numbered(&packed(20, false), Packing::Auto).unwrap(), [(0, b"{}".to_vec())]);
    for packing in [Packing::Auto, Packing::Zstd] {
        let wide = numbered(&packed(24, false), packing);
        assert_eq!(wide, Err(FileFault::TooLarge { what: "its zstd window", bytes: 16 << 20 }));
    }
    // A frame that says how small it is needs no more than that.
    assert_eq!(numbered(&packed(24, true), Packing::Auto).unwrap(), [(0, b"{}".to_vec())]);
    // So does one that follows another.
    let both = [packed(12, true), packed(24, false)].concat();
    assert_eq!(
        numbered(&both, Packing::Auto),
        Err(FileFault::TooLarge { what: "its zstd window", bytes: 0 })
    );
}
