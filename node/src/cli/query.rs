use super::CliError;

#[derive(Debug, clap::Args)]
pub struct QueryArgs {}

pub async fn run(_args: QueryArgs) -> Result<(), CliError> {
    Err(CliError::Failed("this command is not built in yet".to_owned()))
}
