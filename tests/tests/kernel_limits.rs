//! Every kernel program leaves half of what the verifier goes through and of the stack: changes must not be refused on
//! somebody's machine. Needs root.

use ga_tests::limits::{Demand, STACK, VERIFIED, demands};

#[test]
fn every_program_leaves_room_below_the_kernels_limits() -> anyhow::Result<()> {
    let demands = demands()?;
    for Demand { name, verified, stack, translated, jitted, load } in &demands {
        println!(
            "{name}: {verified} instructions verified, {stack} bytes of stack, {translated} bytes, {jitted} in machine code, {load:?}"
        );
    }
    for Demand { name, verified, stack, .. } in &demands {
        assert!(*verified <= VERIFIED / 2, "{name}: the verifier goes through {verified} of {VERIFIED} instructions");
        assert!(*stack <= STACK / 2, "{name} takes {stack} of {STACK} bytes of stack");
    }
    Ok(())
}
