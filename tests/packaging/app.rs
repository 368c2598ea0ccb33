//! app BYTES NAME: the logits of a frame of each format, from the top down and from the bottom up, as
//! bytes on stdout. Planes lie at the edges of memory; all that is safe and wrong is an error.

use std::io::{self, Write};
use std::{env, fs, ptr, slice, thread};

use small::{label, softmax, Classifier, Error, Format, Frame, Matrix, Plane, Range, Rotation};

const FORMATS: [(Format, &[(usize, usize)]); 10] = [
    (Format::Rgb, &[(32, 144)]),
    (Format::Bgr, &[(32, 144)]),
    (Format::Rgba, &[(32, 192)]),
    (Format::Bgra, &[(32, 192)]),
    (Format::Gray8, &[(32, 48)]),
    (Format::Nv12, &[(32, 48), (16, 48)]),
    (Format::Nv21, &[(32, 48), (16, 48)]),
    (Format::I420, &[(32, 48), (16, 24), (16, 24)]),
    (Format::Yuyv, &[(32, 96)]),
    (Format::Uyvy, &[(32, 96)]),
];
const ROTATIONS: [Rotation; 4] =
    [Rotation::Deg0, Rotation::Deg90, Rotation::Deg180, Rotation::Deg270];
const GAP: usize = 7;

extern "C" {
    fn mmap(
        at: *mut u8,
        bytes: usize,
        access: i32,
        flags: i32,
        file: i32,
        offset: isize,
    ) -> *mut u8;
    fn mprotect(at: *mut u8, bytes: usize, access: i32) -> i32;
}

/// A copy of `bytes` just behind memory that cannot be read, or just before such.
fn at_an_edge(bytes: &[u8], before: bool) -> &'static [u8] {
    const EDGE: usize = 1 << 16; // pages are no larger
    let (nothing, read_write, private_anonymous) = (0, 3, 0x22);
    assert!(bytes.len() <= EDGE);
    unsafe {
        let memory = mmap(ptr::null_mut(), 3 * EDGE, nothing, private_anonymous, -1, 0);
        assert_eq!(mprotect(memory.add(EDGE), EDGE, read_write), 0);
        let start = memory.add(if before { 2 * EDGE - bytes.len() } else { EDGE });
        ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
        slice::from_raw_parts(start, bytes.len())
    }
}

fn refused(planes: &[Plane], width: u32, height: u32, format: Format) -> Error {
    Frame::new(planes, width, height, format).unwrap_err()
}

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let data = fs::read(&arguments[1]).unwrap();
    let mut classifier = Classifier::new();
    let mut sharing = Classifier::with_threads(3).unwrap();
    for (number, (format, rows_of_planes)) in FORMATS.iter().enumerate() {
        for upwards in [false, true] {
            let logits: Vec<Vec<f32>> = [false, true]
                .iter()
                .map(|before| {
                    let planes = planes_of(&data, rows_of_planes, upwards, *before);
                    require_all_bytes(&planes, *format);
                    let mut frame = Frame::new(&planes, 48, 32, *format).unwrap();
                    frame.rotation = ROTATIONS[number % 4];
                    frame.mirrored = number % 3 == 1;
                    frame.matrix = if number % 2 == 1 { Matrix::Bt709 } else { Matrix::Bt601 };
                    frame.range = if upwards { Range::Full } else { Range::Limited };
                    let logits = classifier.run_frame(&frame).unwrap();
                    assert_eq!(logits, sharing.run_frame(&frame).unwrap());
                    require_answers(&mut sharing, &frame, logits);
                    logits.to_vec()
                })
                .collect();
            assert_eq!(logits[0], logits[1]);
            for logit in &logits[0] {
                io::stdout().write_all(&logit.to_le_bytes()).unwrap();
            }
        }
    }
    require_errors(&data);
    let elsewhere = thread::spawn(move || sharing.self_test()); // it is Send
    assert_eq!(elsewhere.join().unwrap(), Ok(()));
    assert_eq!(small::describe().name, arguments[2]);
    assert!(small::describe().preprocessing.contains("centre"));
}

fn planes_of(
    data: &[u8],
    rows_of_planes: &[(usize, usize)],
    upwards: bool,
    before: bool,
) -> Vec<Plane<'static>> {
    let planes = rows_of_planes.iter().enumerate();
    planes
        .map(|(number, (rows, row_bytes))| {
            let stride = row_bytes + GAP;
            let bytes = &data[8000 * number..][..(rows - 1) * stride + row_bytes];
            let stride = if upwards { -(stride as isize) } else { stride as isize };
            Plane { bytes: at_an_edge(bytes, before), stride }
        })
        .collect()
}

/// A byte less in any of the planes is one too few.
fn require_all_bytes(planes: &[Plane], format: Format) {
    for number in 0..planes.len() {
        let mut shorter = planes.to_vec();
        let expected = planes[number].bytes.len();
        let found = expected - 1;
        shorter[number].bytes = &planes[number].bytes[..found];
        let error = Error::PlaneTooShort { plane: number, expected, found };
        assert_eq!(refused(&shorter, 48, 32, format), error);
    }
}

fn require_answers(classifier: &mut Classifier, frame: &Frame, logits: &[f32]) {
    let (answers, probabilities) =
        (classifier.classify(frame, 100).unwrap(), softmax(logits).unwrap());
    assert_eq!(answers.len(), small::CLASSES);
    for (i, answer) in answers.iter().enumerate() {
        assert_eq!(answer.probability, probabilities[answer.class_index]);
        assert_eq!(Some(answer.label), label(answer.class_index));
        assert!(i == 0 || answers[i - 1].probability >= answer.probability);
    }
    assert_eq!(classifier.classify(frame, 2).unwrap(), answers[..2]);
    assert_eq!(classifier.classify(frame, 0), Err(Error::Count));
}

fn require_errors(data: &[u8]) {
    let refused_rgb = |bytes, stride, width, height| {
        refused(&[Plane { bytes, stride }], width, height, Format::Rgb)
    };
    for (width, height) in [(0, 8), (8, 0), (16385, 1), (1, 16385), (u32::MAX, u32::MAX)] {
        assert_eq!(refused_rgb(data, 150, width, height), Error::FrameSize);
    }
    for format in [Format::Nv12, Format::Nv21, Format::I420, Format::Yuyv, Format::Uyvy] {
        assert_eq!(refused(&[], 47, 32, format), Error::FrameSize);
    }
    assert_eq!(refused(&[], 48, 31, Format::Nv12), Error::FrameSize);
    for stride in [0, 143, -143] {
        assert_eq!(refused_rgb(data, stride, 48, 32), Error::FrameStride);
    }
    for stride in [isize::MAX, isize::MIN, isize::MIN + 1, isize::MAX / 31] {
        let error = refused_rgb(data, stride, 48, 32);
        assert!(matches!(error, Error::PlaneTooShort { plane: 0, .. }), "{error:?}");
    }
    assert!(Frame::new(&[Plane { bytes: data, stride: isize::MIN }], 48, 1, Format::Rgb).is_ok());
    for (planes, format) in [(0, Format::Rgb), (2, Format::Rgb), (1, Format::Nv12)] {
        let given = vec![Plane { bytes: data, stride: 150 }; planes];
        let error = refused(&given, 48, 32, format);
        assert!(matches!(error, Error::Planes { found, .. } if found == planes), "{error:?}");
    }
    let error = Frame::packed(&data[1..4608], 48, 32, Format::Rgb).unwrap_err();
    assert_eq!(error, Error::Length { expected: 4608, found: 4607 });
    assert_eq!(error.to_string(), "there are 4607 values, it takes 4608");
    assert_eq!(Error::FrameStride.to_string(), "frame: a stride is shorter than a row");

    for count in [0, 17, usize::MAX] {
        assert_eq!(Classifier::with_threads(count).unwrap_err(), Error::Threads);
    }
    let mut classifier = Classifier::new();
    let values = small::CHANNELS * small::IMAGE_SIZE * small::IMAGE_SIZE;
    assert!(classifier.run(&vec![0.5; values]).is_ok());
    assert!(classifier.run(&vec![0.5; values + 1]).is_err());
    assert!(classifier.run_rgb8(&vec![5; values]).is_ok());
    assert!(classifier.run_rgb8(&vec![5; values - 1]).is_err());
    assert!(softmax(&[0.5]).is_err());
    assert_eq!(label(small::CLASSES), None);
    assert_eq!(label(usize::MAX), None);
}
