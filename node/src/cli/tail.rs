use super::CliError;

#[derive(Debug, clap::Args)]
pub struct TailArgs {}

pub async fn run(_args: TailArgs) -> Result<(), CliError> {
    Err(CliError::Failed("this command is not built in yet".to_owned()))
}
