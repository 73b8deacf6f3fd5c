-- The role itself stays: other databases of the server may use it.
revoke usage on schema public from quittance_app;
revoke all on __diesel_schema_migrations from quittance_app;
