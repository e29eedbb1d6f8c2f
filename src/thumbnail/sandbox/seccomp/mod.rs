//! Seccomp: which system calls can be made.
//!
//! Filters lie one over the other, and the strictest answer counts. One is a closed list: whatever is
//! not on it fails with EPERM, as threads, files and terminals do that a library in good order may ask
//! for by the way. One ends the process at what only an intruder would ask for. One, for programs,
//! answers ENOSYS where a library has another way to go.

mod calls;

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use self::calls::{Call, Rule, Test};
use super::report::Layer;

/// Leaves a worker what computing takes.
pub(super) fn worker() -> Layer {
    layer(apply(&[
        (calls::deadly_to_worker(), SeccompAction::KillProcess, SeccompAction::Allow),
        (calls::allowed_to_worker(), SeccompAction::Allow, refuse(libc::EPERM)),
    ]))
}

/// Leaves a program what computing, starting and threads take. Files can be opened for writing only
/// where `writes_files`.
pub(super) fn program(writes_files: bool) -> Layer {
    layer(apply(&[
        (calls::without_arguments_to_see(), refuse(libc::ENOSYS), SeccompAction::Allow),
        (calls::deadly_to_program(), SeccompAction::KillProcess, SeccompAction::Allow),
        (calls::allowed_to_program(writes_files), SeccompAction::Allow, refuse(libc::EPERM)),
    ]))
}

fn refuse(errno: i32) -> SeccompAction {
    SeccompAction::Errno(errno.unsigned_abs())
}

fn layer(outcome: Result<(), seccompiler::Error>) -> Layer {
    match outcome {
        Ok(()) => Layer::whole("system calls filtered"),
        Err(error) => Layer::lacking(
            "system calls not filtered",
            format!(
                "system calls are not filtered ({error}); the kernel needs CONFIG_SECCOMP_FILTER, \
                 and the system call seccomp has to be allowed"
            ),
        ),
    }
}

/// Calls, what is done about them, and what about all others.
type Filter = (Vec<Call>, SeccompAction, SeccompAction);

/// Compiles all filters before the first is in force. The closed list comes last: it forbids more.
fn apply(filters: &[Filter]) -> Result<(), seccompiler::Error> {
    let programs: Vec<_> = filters.iter().map(compile).collect::<Result<_, _>>()?;
    programs.iter().try_for_each(|program| seccompiler::apply_filter(program))
}

fn compile((calls, matched, others): &Filter) -> Result<BpfProgram, seccompiler::Error> {
    let mut rules = BTreeMap::<i64, Vec<SeccompRule>>::new();
    for call in calls {
        let compiled = call.rules.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        rules.entry(call.number).or_default().extend(compiled);
    }
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, others.clone(), matched.clone(), architecture)?;
    Ok(filter.try_into()?)
}

fn rule(tests: &Rule) -> Result<SeccompRule, seccompiler::Error> {
    let conditions = tests.iter().map(|test| {
        let (argument, operator, value) = match *test {
            Test::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
            Test::Masked(argument, mask, value) => (argument, SeccompCmpOp::MaskedEq(mask), value),
        };
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
    });
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}
