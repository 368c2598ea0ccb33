//! A picture in memory, of which every byte that is read is known to be there.

use core::ptr;

use crate::{library, Error};

/// What a byte of a frame means. One plane, but for `Nv12`, `Nv21` (Y, chroma) and `I420` (Y, U, V).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // their names are all there is to say
pub enum Format {
    Rgb = 0,
    Bgr = 1,
    /// The fourth byte is not read.
    Rgba = 2,
    /// The fourth byte is not read.
    Bgra = 3,
    Gray8 = 4,
    /// Even width and height, as for the two after it.
    Nv12 = 5,
    Nv21 = 6,
    I420 = 7,
    /// Even width.
    Yuyv = 8,
    /// Even width.
    Uyvy = 9,
}

impl Format {
    /// Rows and bytes of a row of each plane; no rows: there is no such plane.
    fn layout(self, width: usize, height: usize) -> [(usize, usize); 3] {
        const NONE: (usize, usize) = (0, 0);
        let chroma = height / 2;
        match self {
            Format::Rgb | Format::Bgr => [(height, 3 * width), NONE, NONE],
            Format::Rgba | Format::Bgra => [(height, 4 * width), NONE, NONE],
            Format::Gray8 => [(height, width), NONE, NONE],
            Format::Nv12 | Format::Nv21 => [(height, width), (chroma, width), NONE],
            Format::I420 => [(height, width), (chroma, width / 2), (chroma, width / 2)],
            Format::Yuyv | Format::Uyvy => [(height, 2 * width), NONE, NONE],
        }
    }

    fn halves_columns(self) -> bool {
        self.halves_rows() || matches!(self, Format::Yuyv | Format::Uyvy)
    }

    fn halves_rows(self) -> bool {
        matches!(self, Format::Nv12 | Format::Nv21 | Format::I420)
    }
}

/// How YUV is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Matrix {
    #[default]
    Bt601 = 0,
    Bt709 = 1,
}

/// Which values of YUV are black and white.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// 16 and 235.
    #[default]
    Limited = 0,
    /// 0 and 255.
    Full = 1,
}

/// Degrees clockwise that turn a frame upright.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Rotation {
    #[default]
    Deg0 = 0,
    Deg90 = 90,
    Deg180 = 180,
    Deg270 = 270,
}

/// Rows of bytes, `stride` bytes from one to the next.
///
/// With a negative stride the first row lies last in `bytes`, as in a bitmap from the bottom up.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// All rows; what is between them, and behind them, is not read.
    pub bytes: &'a [u8],
    /// At least the bytes of a row, or as many below 0.
    pub stride: isize,
}

/// A picture as a camera or a decoder has it in memory, which it borrows.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    planes: [Plane<'a>; 3],
    width: u32,
    height: u32,
    format: Format,
    /// Turns it upright, after `mirrored`. EXIF orientations 1 to 8 are rotation and mirrored: 0; 0,
    /// mirrored; 180; 180, mirrored; 270, mirrored; 90; 90, mirrored; 270.
    pub rotation: Rotation,
    /// Left and right are swapped first.
    pub mirrored: bool,
    /// Of YUV.
    pub matrix: Matrix,
    /// Of YUV.
    pub range: Range,
}

impl<'a> Frame<'a> {
    /// The longest side that a frame may have, in pixels.
    pub const SIDE_MAX: u32 = 16384;

    /// A frame of `planes`, as many as the format has; sizes are in pixels as they lie in memory.
    ///
    /// # Errors
    ///
    /// A size, a stride or a number of planes that the format has not, or a plane that ends before
    /// its last row does.
    pub fn new(
        planes: &[Plane<'a>],
        width: u32,
        height: u32,
        format: Format,
    ) -> Result<Self, Error> {
        let layout = checked_layout(width, height, format)?;
        let expected = layout.iter().filter(|(rows, _)| *rows > 0).count();
        if planes.len() != expected {
            return Err(Error::Planes { expected, found: planes.len() });
        }
        let mut kept = [Plane { bytes: &[], stride: 0 }; 3];
        for (number, (plane, (rows, row_bytes))) in planes.iter().zip(layout).enumerate() {
            let stride = plane.stride.unsigned_abs();
            if stride < row_bytes {
                return Err(Error::FrameStride);
            }
            let before_last = stride.checked_mul(rows - 1);
            let expected = before_last.and_then(|bytes| bytes.checked_add(row_bytes));
            let expected = expected.unwrap_or(usize::MAX); // longer than any slice
            let found = plane.bytes.len();
            if found < expected {
                return Err(Error::PlaneTooShort { plane: number, expected, found });
            }
            kept[number] = *plane;
        }
        Ok(Frame {
            planes: kept,
            width,
            height,
            format,
            rotation: Rotation::default(),
            mirrored: false,
            matrix: Matrix::default(),
            range: Range::default(),
        })
    }

    /// A frame of all planes one behind the other, rows without gaps.
    ///
    /// # Errors
    ///
    /// A size that the format has not, or another number of bytes than that takes.
    pub fn packed(bytes: &'a [u8], width: u32, height: u32, format: Format) -> Result<Self, Error> {
        let layout = checked_layout(width, height, format)?;
        let expected = layout.iter().map(|(rows, row_bytes)| rows * row_bytes).sum();
        if bytes.len() != expected {
            return Err(Error::Length { expected, found: bytes.len() });
        }
        let (mut planes, mut rest) = ([Plane { bytes, stride: 0 }; 3], bytes);
        for (plane, (rows, row_bytes)) in planes.iter_mut().zip(layout) {
            let (own, others) = rest.split_at(rows * row_bytes);
            *plane = Plane { bytes: own, stride: row_bytes as isize };
            rest = others;
        }
        let count = layout.iter().filter(|(rows, _)| *rows > 0).count();
        Frame::new(&planes[..count], width, height, format)
    }

    /// In pixels, as they lie in memory.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// In pixels, as they lie in memory.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// As C takes it: each plane by its first row, wherever that lies. It lives no longer than this.
    pub(crate) fn record(&self) -> library::Frame {
        let layout = self.format.layout(self.width as usize, self.height as usize);
        let mut pointers = [ptr::null(); 3];
        for ((pointer, plane), (rows, _)) in pointers.iter_mut().zip(self.planes).zip(layout) {
            if rows > 0 {
                let before = if plane.stride < 0 { rows - 1 } else { 0 };
                let start = before * plane.stride.unsigned_abs();
                *pointer = plane.bytes.as_ptr().wrapping_add(start);
            }
        }
        library::Frame {
            planes: pointers,
            strides: self.planes.map(|plane| plane.stride),
            width: self.width as i32,
            height: self.height as i32,
            format: self.format as i32,
            rotation: self.rotation as i32,
            mirrored: self.mirrored.into(),
            matrix: self.matrix as i32,
            range: self.range as i32,
        }
    }
}

fn checked_layout(width: u32, height: u32, format: Format) -> Result<[(usize, usize); 3], Error> {
    let is_side = |length| (1..=Frame::SIDE_MAX).contains(&length);
    let is_odd =
        (format.halves_columns() && width % 2 == 1) || (format.halves_rows() && height % 2 == 1);
    if !is_side(width) || !is_side(height) || is_odd {
        return Err(Error::FrameSize);
    }
    Ok(format.layout(width as usize, height as usize))
}
