//! The structs and exports of the columnar ABI, version 1. Addresses are 32 bits: this runs on wasm32 only.

use std::alloc::Layout;
use std::any::Any;
use std::cell::RefCell;

/// Arguments, or columns of a result.
#[repr(C)]
pub struct Batch {
    pub(crate) rows: u32,
    pub(crate) ncols: u32,
    pub(crate) cols: u32,
    pub(crate) flags: u32,
}

/// One column.
#[repr(C)]
#[derive(Default)]
pub struct Col {
    pub(crate) kind: u32,
    pub(crate) flags: u32,
    pub(crate) null_count: u32,
    pub(crate) validity: u32,
    pub(crate) buf0: u32,
    pub(crate) len0: u32,
    pub(crate) buf1: u32,
    pub(crate) len1: u32,
    pub(crate) nchildren: u32,
    pub(crate) children: u32,
    pub(crate) p0: u32,
    pub(crate) p1: u32,
}

/// Flag of a column that has one row, which stands for all.
const CONST: u32 = 1;

impl Batch {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows as usize
    }

    /// The columns.
    pub(crate) fn columns(&self) -> &[Col] {
        // SAFETY: the host passes an array of `ncols` columns that stays until the call returns.
        unsafe { array(self.cols, self.ncols as usize) }
    }
}

impl Col {
    pub(crate) fn is_const(&self) -> bool {
        self.flags & CONST != 0
    }

    pub(crate) fn children(&self) -> &[Col] {
        // SAFETY: as for the columns of a batch.
        unsafe { array(self.children, self.nchildren as usize) }
    }
}

/// The array at an address.
///
/// # Safety
/// `len` values of `T` are at `address` and outlive `'a`.
pub(crate) unsafe fn array<'a, T>(address: u32, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    std::slice::from_raw_parts(address as usize as *const T, len)
}

/// What a call leaves behind until the next one.
#[derive(Default)]
struct Instance {
    outputs: Vec<Box<dyn Any>>,
    message: String,
    row: Option<usize>,
}

thread_local! {
    static INSTANCE: RefCell<Instance> = RefCell::new(Instance::default());
}

/// Forgets the outputs of the last call.
pub(crate) fn begin_call() {
    crate::error::report_panics();
    INSTANCE.with(|instance| {
        let mut instance = instance.borrow_mut();
        instance.outputs.clear();
        instance.row = None;
    });
}

/// Keeps `values` until the next call; their address and their length in bytes.
pub(crate) fn keep<T: 'static>(values: Vec<T>) -> (u32, u32) {
    let at = values.as_ptr() as usize as u32;
    let bytes = std::mem::size_of::<T>() * values.len();
    if bytes == 0 {
        return (0, 0);
    }
    assert!(bytes <= i32::MAX as usize, "a column of a result is larger than 2 GiB");
    INSTANCE.with(|instance| instance.borrow_mut().outputs.push(Box::new(values)));
    (at, bytes as u32)
}

/// Remembers an error; the status to return.
pub(crate) fn fail(message: String, row: Option<usize>) -> i32 {
    INSTANCE.with(|instance| {
        let mut instance = instance.borrow_mut();
        instance.message = message;
        instance.row = row;
    });
    -1
}

#[no_mangle]
extern "C" fn sparklet_abi() -> i32 {
    0x0001_0000
}

#[no_mangle]
extern "C" fn sparklet_alloc(size: usize, align: usize) -> *mut u8 {
    match Layout::from_size_align(size.max(1), align) {
        // SAFETY: the size is not zero.
        Ok(layout) => unsafe { std::alloc::alloc(layout) },
        Err(_) => std::ptr::null_mut(),
    }
}

#[no_mangle]
unsafe extern "C" fn sparklet_free(at: *mut u8, size: usize, align: usize) {
    if let Ok(layout) = Layout::from_size_align(size.max(1), align) {
        // SAFETY: the host gives the size and the alignment that it asked for.
        std::alloc::dealloc(at, layout);
    }
}

#[no_mangle]
extern "C" fn sparklet_error() -> i64 {
    INSTANCE.with(|instance| {
        let message = &instance.borrow().message;
        ((message.as_ptr() as usize as i64) << 32) | message.len() as i64
    })
}

#[no_mangle]
extern "C" fn sparklet_error_row() -> i64 {
    INSTANCE.with(|instance| instance.borrow().row.map_or(-1, |row| row as i64))
}

#[no_mangle]
extern "C" fn sparklet_end_call() {
    INSTANCE.with(|instance| instance.borrow_mut().outputs.clear());
}
