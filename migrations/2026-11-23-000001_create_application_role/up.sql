-- The role that the running service takes on (SET ROLE after login). It owns nothing and cannot log in.
--
-- Roles belong to the whole server, so another database of it may have made this one already, or may
-- be making it at this very moment: either is fine. Where it is there, nobody needs the right to make roles.
do $$
begin
    if not exists (select from pg_roles where rolname = 'quittance_app') then
        create role quittance_app nologin;
    end if;
exception
    when duplicate_object or unique_violation then null;
end
$$;

-- Whoever migrates can act as the application, so that one login suffices for development and tests.
-- A superuser can without being a member.
do $$
begin
    if not pg_has_role(current_user, 'quittance_app', 'member') then
        execute format('grant quittance_app to %I', current_user);
    end if;
exception
    when unique_violation or internal_error then null;
end
$$;

-- The service checks at start-up that every migration was run.
grant select on __diesel_schema_migrations to quittance_app;

-- PostgreSQL 15 no longer lets everyone create objects here, but a database upgraded from 14 still does.
revoke create on schema public from public;
grant usage on schema public to quittance_app;
