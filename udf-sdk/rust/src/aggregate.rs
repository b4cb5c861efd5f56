//! Aggregate functions.

use crate::abi::{array, begin_call, fail, keep, Batch, Col};
use crate::column::{Output, Writer};
use crate::error::Result;
use crate::row::{Columns, Row, RowOutput};
use crate::scalar::{wrong_arguments, Return};

/// What an aggregate knows of one group. A new group is [`Default`].
///
/// ```
/// use sparklet_udf::{Aggregate, Result};
///
/// #[derive(Default)]
/// struct Wavg { sum: f64, weight: f64 }
///
/// impl<'a> Aggregate<'a> for Wavg {
///     type Args = (f64, f64);
///     type State = (f64, f64);
///     type Output = Option<f64>;
///
///     fn update(&mut self, (value, weight): (f64, f64)) -> Result {
///         self.sum += value * weight;
///         self.weight += weight;
///         Ok(())
///     }
///
///     fn merge(&mut self, (sum, weight): (f64, f64)) -> Result {
///         self.sum += sum;
///         self.weight += weight;
///         Ok(())
///     }
///
///     fn state(self) -> (f64, f64) {
///         (self.sum, self.weight)
///     }
///
///     fn evaluate(self) -> Option<f64> {
///         (self.weight != 0.0).then(|| self.sum / self.weight)
///     }
/// }
///
/// sparklet_udf::aggregate! {
///     /// The average of values by weight.
///     wavg = Wavg
/// }
/// ```
pub trait Aggregate<'a>: Default + 'static {
    /// The arguments, a tuple of up to eight. A row with a NULL is passed over unless the type there is an `Option`.
    type Args: Row<'a>;
    /// What is handed on when groups are split or kept: a tuple of up to eight, whose types own their values.
    type State: Row<'a> + RowOutput;
    /// The result; a `Result` may be an error.
    type Output: Return;

    /// Takes in a row.
    ///
    /// # Errors
    /// What the query ends with.
    fn update(&mut self, arguments: Self::Args) -> Result;

    /// Takes in what another instance knows of the group.
    ///
    /// # Errors
    /// What the query ends with.
    fn merge(&mut self, state: Self::State) -> Result;

    /// What is known of the group.
    fn state(self) -> Self::State;

    /// The result for the group.
    fn evaluate(self) -> Self::Output;

    /// Bytes that the group takes beside the struct itself, such as the capacity of its lists. It is asked before and
    /// after each update: count, do not walk.
    fn heap(&self) -> usize {
        0
    }
}

/// All groups of a task.
pub struct Groups<G> {
    groups: Vec<G>,
    heap: usize,
}

impl<G: for<'a> Aggregate<'a>> Groups<G> {
    fn take_in<'a, A: Row<'a>>(
        &mut self,
        batch: &'a Batch,
        ids: &[u32],
        ngroups: usize,
        take: impl Fn(&mut G, A) -> Result,
    ) -> i32 {
        if self.groups.len() < ngroups {
            self.groups.resize_with(ngroups, G::default);
        }
        let columns = A::columns(batch);
        let plain = columns.are_plain();
        for (row, &group) in ids.iter().enumerate() {
            // SAFETY: the columns have a row for each id, or one for all; `get` is for those that are plain.
            let arguments = unsafe {
                if plain {
                    Some(columns.get(row))
                } else {
                    columns.find(row)
                }
            };
            let arguments = match arguments {
                Some(arguments) => arguments,
                None => continue,
            };
            let group = &mut self.groups[group as usize];
            let before = group.heap();
            if let Err(error) = take(group, arguments) {
                return fail(error.to_string(), Some(row));
            }
            self.heap = (self.heap + group.heap()).saturating_sub(before);
        }
        0
    }

    fn pop_first(&mut self, n: usize) -> Vec<G> {
        if self.groups.len() < n {
            self.groups.resize_with(n, G::default);
        }
        let rest = self.groups.split_off(n);
        let first = std::mem::replace(&mut self.groups, rest);
        self.heap = self.heap.saturating_sub(first.iter().map(Aggregate::heap).sum());
        first
    }
}

/// # Safety
/// The handle came from `new_groups` and was not dropped.
unsafe fn groups<'a, G>(handle: usize) -> &'a mut Groups<G> {
    &mut *(handle as *mut Groups<G>)
}

/// A handle to no groups.
pub fn new_groups<G>() -> usize {
    begin_call();
    Box::into_raw(Box::new(Groups::<G> { groups: Vec::new(), heap: 0 })) as usize
}

/// # Safety
/// See [`groups`].
pub unsafe fn update<G: for<'a> Aggregate<'a>>(handle: usize, batch: &Batch, ids: u32, ngroups: usize) -> i32 {
    begin_call();
    wrong_arguments::<<G as Aggregate<'_>>::Args>(batch).unwrap_or_else(|| {
        groups::<G>(handle)
            .take_in(batch, array(ids, batch.rows()), ngroups, |group, arguments| group.update(arguments))
    })
}

/// # Safety
/// See [`groups`].
pub unsafe fn merge<G: for<'a> Aggregate<'a>>(handle: usize, batch: &Batch, ids: u32, ngroups: usize) -> i32 {
    begin_call();
    wrong_arguments::<<G as Aggregate<'_>>::State>(batch).unwrap_or_else(|| {
        groups::<G>(handle).take_in(batch, array(ids, batch.rows()), ngroups, |group, state| group.merge(state))
    })
}

/// # Safety
/// See [`groups`].
pub unsafe fn state<G: for<'a> Aggregate<'a>>(handle: usize, n: usize, out: &mut Batch) -> i32 {
    begin_call();
    let first = groups::<G>(handle).pop_first(n);
    let rows = first.len() as u32;
    let mut writers = <<G as Aggregate<'_>>::State as RowOutput>::writers(first.len());
    for group in first {
        RowOutput::push(group.state(), &mut writers);
    }
    write(<<G as Aggregate<'_>>::State as RowOutput>::finish(writers), rows, out);
    0
}

/// Makes `columns` the batch at `out`.
pub(crate) fn write(columns: Vec<Col>, rows: u32, out: &mut Batch) {
    let ncols = columns.len() as u32;
    let (cols, _) = keep(columns);
    *out = Batch { rows, ncols, cols, flags: 0 };
}

/// # Safety
/// See [`groups`].
pub unsafe fn evaluate<G: for<'a> Aggregate<'a>>(handle: usize, n: usize, out: &mut Col) -> i32 {
    begin_call();
    let first = groups::<G>(handle).pop_first(n);
    let mut writer = <<<<G as Aggregate<'_>>::Output as Return>::Value as Output>::Writer as Writer>::with_rows(n);
    for (row, group) in first.into_iter().enumerate() {
        match group.evaluate().outcome() {
            Ok(value) => Output::push(&mut writer, value),
            Err(message) => return fail(message, Some(row)),
        }
    }
    *out = writer.finish();
    0
}

/// # Safety
/// See [`groups`].
pub unsafe fn size<G>(handle: usize) -> usize {
    let groups = groups::<G>(handle);
    groups.groups.capacity() * std::mem::size_of::<G>() + groups.heap
}

/// # Safety
/// See [`groups`]; the handle ends here.
pub unsafe fn drop_groups<G>(handle: usize) {
    drop(Box::from_raw(handle as *mut Groups<G>));
}

/// Declares aggregate functions: `name = Type`, where the type is an [`Aggregate`].
///
/// `"sql name" as name = Type` gives it another name in SQL; several with one such name are overloads.
#[macro_export]
macro_rules! aggregate {
    () => {};
    ($(#[doc = $doc:literal])* $sql:literal as $name:ident = $group:ty $(, $($rest:tt)*)?) => {
        $crate::aggregate! { @one [$sql, concat!($($doc, "\n"),*)] $name $group }
        $($crate::aggregate! { $($rest)* })?
    };
    ($(#[doc = $doc:literal])* $name:ident = $group:ty $(, $($rest:tt)*)?) => {
        $crate::aggregate! { @one [stringify!($name), concat!($($doc, "\n"),*)] $name $group }
        $($crate::aggregate! { $($rest)* })?
    };
    (@one [$sql:expr, $doc:expr] $name:ident $group:ty) => {
        const _: () = {
            use $crate::glue::{Batch, Col, Return, Row, Text};
            use $crate::Aggregate;

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_new"))]
            extern "C" fn new() -> usize {
                $crate::glue::new_groups::<$group>()
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_update"))]
            unsafe extern "C" fn update(handle: usize, batch: &Batch, ids: u32, ngroups: usize) -> i32 {
                $crate::glue::update::<$group>(handle, batch, ids, ngroups)
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_merge"))]
            unsafe extern "C" fn merge(handle: usize, batch: &Batch, ids: u32, ngroups: usize) -> i32 {
                $crate::glue::merge::<$group>(handle, batch, ids, ngroups)
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_state"))]
            unsafe extern "C" fn state(handle: usize, n: usize, out: &mut Batch) -> i32 {
                $crate::glue::state::<$group>(handle, n, out)
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_evaluate"))]
            unsafe extern "C" fn evaluate(handle: usize, n: usize, out: &mut Col) -> i32 {
                $crate::glue::evaluate::<$group>(handle, n, out)
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_size"))]
            unsafe extern "C" fn size(handle: usize) -> usize {
                $crate::glue::size::<$group>(handle)
            }

            #[cfg_attr(target_arch = "wasm32", export_name = concat!("udf_", stringify!($name), "_drop"))]
            unsafe extern "C" fn drop(handle: usize) {
                $crate::glue::drop_groups::<$group>(handle)
            }

            const JSON: Text = Text::of("{\"name\":\"")
                .escaped($sql)
                .raw("\",\"kind\":\"aggregate\",\"export\":\"udf_")
                .raw(stringify!($name))
                .raw("\",\"args\":[")
                .then(&<<$group as Aggregate<'static>>::Args as Row<'static>>::TYPES)
                .raw("],\"state\":[")
                .then(&<<$group as Aggregate<'static>>::State as Row<'static>>::TYPES)
                .raw("],\"returns\":\"")
                .then(&<<<$group as Aggregate<'static>>::Output as Return>::Value as $crate::Output>::TYPE)
                .raw("\",\"doc\":\"")
                .escaped($doc)
                .raw("\"}\n");

            #[cfg_attr(target_arch = "wasm32", link_section = "sparklet.udf")]
            #[used]
            pub static SECTION: [u8; JSON.len] = JSON.array();
        };
    };
}
