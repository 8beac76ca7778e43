use super::CliError;

#[derive(Debug, clap::Args)]
pub struct DeadLettersArgs {}

pub async fn run(_args: DeadLettersArgs) -> Result<(), CliError> {
    Err(CliError::Failed("this command is not built in yet".to_owned()))
}
