use super::CliError;

#[derive(Debug, clap::Args)]
pub struct BenchArgs {}

pub async fn run(_args: BenchArgs) -> Result<(), CliError> {
    Err(CliError::Failed("this command is not built in yet".to_owned()))
}
