#!/usr/bin/env bash
# Runs once, when the database is made. The role is no superuser and cannot pass by row-level security (docs/decisions/0007).
set -euo pipefail
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" <<S
CREATE ROLE flock LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD '$(cat /secrets/postgres)';
CREATE DATABASE flock OWNER flock;
S
