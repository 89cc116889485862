//! `filter`: a condition in SQL over whole batches, by DataFusion.
//!
//! What DataFusion says when a condition is compiled names the condition's own words, columns and types, and may be
//! told. What it says when one is computed quotes values, and goes no further than "this row failed": the batch is then
//! halved until the rows that are to blame stand alone.

use std::{collections::BTreeSet, fmt, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanBufferBuilder, RecordBatch},
    buffer::BooleanBuffer,
    datatypes::DataType,
};
use datafusion::{
    common::{
        DFSchema, DataFusionError, SchemaError,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, Operator, Volatility, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, ScalarFunctionExpr},
    physical_plan::expressions::{
        BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal,
        NotExpr,
    },
    prelude::{SessionConfig, SessionContext},
};
use siltstone_protocol::Schema;
use siltstone_spec::{TableSpec, transform::nearest_column};

use crate::{IngestError, columns::arrow_schema, dead_letter::About};

/// DataFusion explains at length; the first words say it.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why a condition is no filter of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FilterFault {
    /// The source has no such column (so far).
    UnknownColumn {
        column: String,
        nearest: Option<String>,
    },
    Other(String),
}

impl fmt::Display for FilterFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("transforms.filter: ")?;
        match self {
            Self::UnknownColumn { column, nearest } => {
                write!(f, "the source has no column {column}")?;
                nearest.as_ref().map_or(Ok(()), |nearest| write!(f, "; did you mean {nearest}?"))
            }
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl FilterFault {
    pub(crate) fn of(&self, table: &TableSpec) -> IngestError {
        IngestError::invalid(format!("table {}", table.name), self.to_string())
    }
}

/// A condition that is understood.
pub(crate) struct Condition {
    expr: Expr,
    context: SessionContext,
    source: DFSchema,
}

impl Condition {
    /// Reads a condition over the columns of this source.
    pub(crate) fn parse(text: &str, source: &Schema) -> Result<Self, FilterFault> {
        let other = |error: &IngestError| FilterFault::Other(error.to_string());
        let arrow = arrow_schema(source).map_err(|error| other(&error))?;
        let source_schema = DFSchema::try_from(arrow).map_err(|error| FilterFault::Other(message(&error)))?;
        let mut config = SessionConfig::new();
        // Columns are called as they are written.
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let context = SessionContext::new_with_config(config);
        let expr = context.parse_sql_expr(text, &source_schema).map_err(|error| fault(&error, source))?;
        check(&expr)?;
        Ok(Self { expr, context, source: source_schema })
    }

    /// Names of the source's columns that it looks at.
    pub(crate) fn columns(&self) -> BTreeSet<String> {
        self.expr.column_refs().iter().map(|column| column.name.clone()).collect()
    }

    /// # Errors
    /// `Invalid`: types that do not fit each other.
    pub(crate) fn compile(self) -> Result<Filter, IngestError> {
        let invalid = |why: String| IngestError::invalid("transforms.filter", why);
        let about = Arc::new(about(self.columns()));
        let source = Arc::new(self.source.clone());
        let simplifier = ExprSimplifier::new(SimplifyContext::default().with_schema(Arc::clone(&source)));
        // Some functions are there in a simpler form only, and what is constant is computed once.
        let simple = simplifier.coerce(self.expr, &source).and_then(|expr| simplifier.simplify(expr));
        let simple = simple.map_err(|error| invalid(message(&error)))?;
        let physical = self
            .context
            .create_physical_expr(simple, &self.source)
            .map_err(|error| invalid(message(&error)))?;
        let data_type =
            physical.data_type(self.source.as_arrow()).map_err(|error| invalid(message(&error)))?;
        if !matches!(data_type, DataType::Boolean) {
            return Err(invalid("it is no condition: what it gives is not true or false".to_owned()));
        }
        let can_fail = can_fail(&physical, &self.source);
        Ok(Filter { expr: physical, can_fail, about })
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").finish_non_exhaustive()
    }
}

/// What a row is about for which a condition over these columns cannot be computed.
fn about(columns: BTreeSet<String>) -> About {
    let detail = "transforms.filter cannot be computed";
    let mut columns: Vec<String> = columns.into_iter().collect();
    if columns.len() <= 1 {
        return About { field: columns.pop(), detail: detail.to_owned() };
    }
    About { field: None, detail: format!("{detail} from {}", columns.join(", ")) }
}

fn fault(error: &DataFusionError, source: &Schema) -> FilterFault {
    if let DataFusionError::SchemaError(reason, _) = error.find_root()
        && let SchemaError::FieldNotFound { field, .. } = reason.as_ref()
    {
        let column = field.flat_name();
        let nearest = nearest_column(&column, source);
        return FilterFault::UnknownColumn { column, nearest };
    }
    FilterFault::Other(message(error))
}

fn message(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(MESSAGE_CHARS_MAX).collect()
}

/// A condition looks at one row, and says the same whenever it is asked.
fn check(expr: &Expr) -> Result<(), FilterFault> {
    let mut why = None;
    let looked = expr.apply(|part| {
        why = match part {
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                Some("it looks at one row at a time: no aggregates and no windows".to_owned())
            }
            Expr::Exists(_)
            | Expr::InSubquery(_)
            | Expr::ScalarSubquery(_)
            | Expr::OuterReferenceColumn(..) => {
                Some("it looks at the columns of one row: no queries".to_owned())
            }
            Expr::Placeholder(_) | Expr::ScalarVariable(..) => Some("it has no variables".to_owned()),
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                Some(format!(
                    "{} says something else each time; rows that are read again must fare alike",
                    call.name()
                ))
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        };
        Ok(TreeNodeRecursion::Stop)
    });
    match (looked, why) {
        (Ok(_), None) => Ok(()),
        (Ok(_), Some(why)) => Err(FilterFault::Other(why)),
        (Err(error), _) => Err(FilterFault::Other(message(&error))),
    }
}

/// Whether it may fail for a row: everything may that is not known to be safe.
fn can_fail(expr: &Arc<dyn PhysicalExpr>, source: &DFSchema) -> bool {
    let any = expr.as_any();
    let is_safe = if let Some(binary) = any.downcast_ref::<BinaryExpr>() {
        is_comparison(*binary.op())
    } else if let Some(function) = any.downcast_ref::<ScalarFunctionExpr>() {
        function.name() == "get_field"
    } else if let Some(cast) = any.downcast_ref::<CastExpr>() {
        cast.expr().data_type(source.as_arrow()).is_ok_and(|from| is_widening(&from, cast.cast_type()))
    } else {
        any.is::<Column>()
            || any.is::<Literal>()
            || any.is::<NotExpr>()
            || any.is::<IsNullExpr>()
            || any.is::<IsNotNullExpr>()
            || any.is::<InListExpr>()
            || any.is::<LikeExpr>()
            || any.is::<CaseExpr>()
    };
    !is_safe || expr.children().into_iter().any(|child| can_fail(child, source))
}

fn is_comparison(op: Operator) -> bool {
    use Operator as O;
    matches!(
        op,
        O::Eq
            | O::NotEq
            | O::Lt
            | O::LtEq
            | O::Gt
            | O::GtEq
            | O::And
            | O::Or
            | O::IsDistinctFrom
            | O::IsNotDistinctFrom
    )
}

/// A date is no widening to a moment: nanoseconds end in 2262, dates do not.
fn is_widening(from: &DataType, to: &DataType) -> bool {
    use DataType as T;
    from == to
        || matches!(
            (from, to),
            (T::Int32, T::Int64 | T::Float32 | T::Float64)
                | (T::Int64, T::Float32 | T::Float64)
                | (T::Float32, T::Float64)
                | (T::Utf8, T::Utf8View | T::LargeUtf8)
                | (T::Binary, T::BinaryView | T::LargeBinary)
        )
}

/// A condition, compiled for one source.
pub(crate) struct Filter {
    expr: Arc<dyn PhysicalExpr>,
    can_fail: bool,
    about: Arc<About>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filter").field("can_fail", &self.can_fail).finish_non_exhaustive()
    }
}

/// What a filter says of a batch.
pub(super) struct Kept {
    /// Rows for which the condition is true.
    pub(super) rows: BooleanBuffer,
    /// Rows for which it could not be computed, ascending.
    pub(super) failed: Vec<usize>,
}

impl Filter {
    pub(super) fn can_fail(&self) -> bool {
        self.can_fail
    }

    /// What rows are about for which it cannot be computed.
    pub(super) fn about(&self) -> &Arc<About> {
        &self.about
    }

    pub(super) fn keep(&self, batch: &RecordBatch) -> Kept {
        let mut rows = BooleanBufferBuilder::new(batch.num_rows());
        let mut failed = Vec::new();
        self.judge(batch, 0, &mut rows, &mut failed);
        Kept { rows: rows.finish(), failed }
    }

    /// `first`: the place of the batch's first row.
    fn judge(
        &self,
        batch: &RecordBatch,
        first: usize,
        rows: &mut BooleanBufferBuilder,
        failed: &mut Vec<usize>,
    ) {
        let count = batch.num_rows();
        if let Some(kept) = self.evaluate(batch) {
            rows.append_buffer(&kept);
        } else if count == 1 {
            rows.append(false);
            failed.push(first);
        } else {
            let half = count / 2;
            self.judge(&batch.slice(0, half), first, rows, failed);
            self.judge(&batch.slice(half, count - half), first + half, rows, failed);
        }
    }

    /// `None`: it failed for a row.
    fn evaluate(&self, batch: &RecordBatch) -> Option<BooleanBuffer> {
        let value = self.expr.evaluate(batch).ok()?;
        let array = value.into_array(batch.num_rows()).ok()?;
        let answers = array.as_boolean_opt()?;
        Some(match answers.nulls() {
            Some(nulls) => answers.values() & nulls.inner(),
            None => answers.values().clone(),
        })
    }
}
