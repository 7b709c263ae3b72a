//! `PostGIS`'s extended WKB becomes ISO WKB, which is what readers of Parquet expect.
//!
//! A geometry is a byte order, a type, perhaps an SRID, and the rest by type (`liblwgeom/lwout_wkb.c`). Extended WKB
//! marks dimensions and SRID by the type's high bits, ISO WKB (ISO 13249-3, OGC 06-103r4) adds 1000 for Z and 2000 for M
//! and has no SRID. Coordinates are the same in both, so they are copied.

use super::error::Problem;

/// Geometries within geometries: as deep as `PostGIS` itself reads them (`LW_PARSER_MAX_DEPTH`).
const GEOMETRY_DEPTH_MAX: usize = 200;

const FLAG_Z: u32 = 0x8000_0000;
const FLAG_M: u32 = 0x4000_0000;
const FLAG_SRID: u32 = 0x2000_0000;

/// What follows the type.
#[derive(Clone, Copy)]
enum Body {
    Point,
    /// Points behind their count.
    Points,
    /// Rings or patches behind their count, each points behind theirs.
    Rings,
    /// Geometries behind their count, each with a header of its own.
    Geometries,
}

/// Appends the ISO form of one geometry.
///
/// # Errors
/// What `PostGIS` does not send: another length than the counts say, a type it does not have, geometries nested deeper
/// than [`GEOMETRY_DEPTH_MAX`].
pub(super) fn append_iso_wkb(ewkb: &[u8], out: &mut Vec<u8>) -> Result<(), Problem> {
    let mut input = Input { rest: ewkb };
    input.geometry(out, GEOMETRY_DEPTH_MAX)?;
    if input.rest.is_empty() { Ok(()) } else { Err(Problem::Malformed("bytes behind a geometry")) }
}

const CUT: Problem = Problem::Malformed("a geometry that is cut off");

/// What has not been read yet.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn geometry(&mut self, out: &mut Vec<u8>, depth: usize) -> Result<(), Problem> {
        let depth = depth.checked_sub(1).ok_or(Problem::Malformed("geometries nested too deeply"))?;
        let little_endian = match self.take(1)? {
            [0] => false,
            [1] => true,
            _ => return Err(Problem::Malformed("a geometry of an unknown byte order")),
        };
        let extended = self.number(little_endian)?;
        let (z, m) = (extended & FLAG_Z != 0, extended & FLAG_M != 0);
        let kind = extended & !(FLAG_Z | FLAG_M | FLAG_SRID);
        let body = body(kind).ok_or(Problem::Malformed("a geometry of an unknown type"))?;
        if extended & FLAG_SRID != 0 {
            self.take(4)?;
        }
        out.push(u8::from(little_endian));
        let iso = kind + 1000 * u32::from(z) + 2000 * u32::from(m);
        out.extend(if little_endian { iso.to_le_bytes() } else { iso.to_be_bytes() });
        let point_bytes = 8 * (2 + usize::from(z) + usize::from(m));
        match body {
            Body::Point => out.extend_from_slice(self.take(point_bytes)?),
            Body::Points => self.points(little_endian, point_bytes, out)?,
            Body::Rings => {
                for _ in 0..self.count(little_endian, out)? {
                    self.points(little_endian, point_bytes, out)?;
                }
            }
            Body::Geometries => {
                for _ in 0..self.count(little_endian, out)? {
                    self.geometry(out, depth)?;
                }
            }
        }
        Ok(())
    }

    fn points(&mut self, little_endian: bool, point_bytes: usize, out: &mut Vec<u8>) -> Result<(), Problem> {
        let count = self.count(little_endian, out)?;
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(point_bytes)).ok_or(CUT)?;
        out.extend_from_slice(self.take(bytes)?);
        Ok(())
    }

    /// How many of something follow; copied. Each takes at least a byte, so that a loop over them ends with the input.
    fn count(&mut self, little_endian: bool, out: &mut Vec<u8>) -> Result<u32, Problem> {
        out.extend_from_slice(self.rest.get(..4).ok_or(CUT)?);
        self.number(little_endian)
    }

    fn number(&mut self, little_endian: bool) -> Result<u32, Problem> {
        let (&bytes, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(if little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Problem> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// The types of `liblwgeom.h.in` (`WKB_*_TYPE`) that `PostGIS` sends.
fn body(kind: u32) -> Option<Body> {
    Some(match kind {
        1 => Body::Point,
        // Line and circular string.
        2 | 8 => Body::Points,
        // Polygon and triangle.
        3 | 17 => Body::Rings,
        // Multi-point, -line, -polygon and collection; compound curve, curve polygon, multi-curve, multi-surface;
        // polyhedral surface and TIN.
        4..=7 | 9..=12 | 15 | 16 => Body::Geometries,
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::source::postgres::decode) fn bytes(digits: &str) -> Vec<u8> {
        let digits: String = digits.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    fn iso(ewkb: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut out = b"before".to_vec();
        append_iso_wkb(ewkb, &mut out)?;
        Ok(out.strip_prefix(b"before").unwrap().to_vec())
    }

    /// A geometry in extended and in ISO form.
    pub(in crate::source::postgres::decode) const GEOMETRIES: &[(&str, &str, &str)] = &[
        ("point", "01 01000000 000000000000f03f 0000000000000040", "01 01000000 000000000000f03f 0000000000000040"),
        (
            "point, SRID 4326",
            "01 01000020 e6100000 000000000000f03f 0000000000000040",
            "01 01000000 000000000000f03f 0000000000000040",
        ),
        (
            "point, big endian, SRID 4326",
            "00 20000001 000010e6 3ff0000000000000 4000000000000000",
            "00 00000001 3ff0000000000000 4000000000000000",
        ),
        (
            "point Z, big endian",
            "00 80000001 3ff0000000000000 4000000000000000 4008000000000000",
            "00 000003e9 3ff0000000000000 4000000000000000 4008000000000000",
        ),
        (
            "point M",
            "01 01000040 000000000000f03f 0000000000000040 0000000000000840",
            "01 d1070000 000000000000f03f 0000000000000040 0000000000000840",
        ),
        (
            "point ZM, SRID 3857",
            "01 010000e0 110f0000 000000000000f03f 0000000000000040 0000000000000840 0000000000001040",
            "01 b90b0000 000000000000f03f 0000000000000040 0000000000000840 0000000000001040",
        ),
        (
            "empty point, which is not a number",
            "01 01000000 000000000000f87f 000000000000f87f",
            "01 01000000 000000000000f87f 000000000000f87f",
        ),
        (
            "line string Z of two points",
            "01 02000080 02000000 0000000000000000 0000000000000000 0000000000000000
                000000000000f03f 000000000000f03f 000000000000f03f",
            "01 ea030000 02000000 0000000000000000 0000000000000000 0000000000000000
                000000000000f03f 000000000000f03f 000000000000f03f",
        ),
        ("empty polygon, SRID", "01 03000020 e6100000 00000000", "01 03000000 00000000"),
        (
            "polygon with an empty ring and one of one point",
            "01 03000000 02000000 00000000 01000000 0000000000000000 000000000000f03f",
            "01 03000000 02000000 00000000 01000000 0000000000000000 000000000000f03f",
        ),
        (
            "multipoint Z, SRID, its second point in the other byte order",
            "01 040000a0 e6100000 02000000
                01 01000080 000000000000f03f 0000000000000040 0000000000000840
                00 80000001 3ff0000000000000 4000000000000000 4008000000000000",
            "01 ec030000 02000000
                01 e9030000 000000000000f03f 0000000000000040 0000000000000840
                00 000003e9 3ff0000000000000 4000000000000000 4008000000000000",
        ),
        (
            "collection of an empty collection, a circular string and a point with an SRID of its own",
            "01 07000000 03000000
                01 07000000 00000000
                01 08000000 01000000 0000000000000000 000000000000f03f
                01 01000020 e6100000 000000000000f03f 0000000000000040",
            "01 07000000 03000000
                01 07000000 00000000
                01 08000000 01000000 0000000000000000 000000000000f03f
                01 01000000 000000000000f03f 0000000000000040",
        ),
        (
            "TIN of one triangle",
            "01 10000040 01000000 01 11000040 01000000 01000000 000000000000f03f 0000000000000040 0000000000000840",
            "01 e0070000 01000000 01 e1070000 01000000 01000000 000000000000f03f 0000000000000040 0000000000000840",
        ),
    ];

    #[test]
    fn dimensions_move_into_the_type_and_the_srid_goes() {
        for (name, extended, expected) in GEOMETRIES {
            assert_eq!(iso(&bytes(extended)), Ok(bytes(expected)), "{name}");
        }
    }

    #[test]
    fn a_geometry_that_is_cut_or_goes_on_is_an_error() {
        for (name, extended, _) in GEOMETRIES {
            let extended = bytes(extended);
            for cut in 0..extended.len() {
                assert_eq!(iso(&extended[..cut]), Err(CUT), "{name} cut to {cut}");
            }
            assert!(iso(&[&extended[..], &[0]].concat()).is_err(), "{name} goes on");
        }
    }

    #[test]
    fn what_postgis_does_not_send_is_an_error() {
        for wrong in [
            "02 01000000 000000000000f03f 0000000000000040",
            "01 00000000",
            "01 0d000000 00000000",
            "01 e9030000 000000000000f03f 0000000000000040 0000000000000840",
            "01 01000010 000000000000f03f 0000000000000040",
            // Counts that nothing could hold.
            "01 02000000 ffffffff",
            "01 03000000 ffffffff",
            "01 07000000 ffffffff",
        ] {
            assert!(iso(&bytes(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| [bytes("01 07000000 01000000").repeat(depth - 1), bytes("01 07000000 00000000")].concat();
        assert_eq!(iso(&nested(GEOMETRY_DEPTH_MAX)), Ok(nested(GEOMETRY_DEPTH_MAX)));
        for depth in [GEOMETRY_DEPTH_MAX + 1, 1_000_000] {
            assert_eq!(iso(&nested(depth)), Err(Problem::Malformed("geometries nested too deeply")));
        }
    }
}
