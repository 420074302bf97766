// Package local runs a private PostgreSQL: the database of a ledger that was given no database URL.
//
// It needs nothing but the server's binaries. [Start] finds them, makes a cluster on the first start, uses it again on
// every later one, and [Server.Stop] shuts it down. Everything lives in one folder of the data directory:
//
//	<data-dir>/postgres/
//	  lock           one process at a time holds it; the file names that process
//	  data/          the cluster (PGDATA), readable by the server's user alone
//	  run/           the socket's directory, mode 0700: nobody else connects
//	  conf/          postgresql.conf, pg_hba.conf, pg_ident.conf, written anew at each start
//	  password       the owner role's password, mode 0600; needed over TCP only
//	  postgres.log   what the server said: warnings and errors, never statements or their values
//
// Settings are changed with ALTER SYSTEM, which wins over conf/.
//
// # As root
//
// PostgreSQL refuses to run as root, so root's server runs as the user postgres, or else nobody. That user must be able
// to reach the cluster, and a data directory below /root is closed to it. Permissions of existing directories are never
// changed; instead the folder is made below [Config.Fallback] (/var/lib/dispatch-ledger), this is logged, and the file
// <data-dir>/postgres.location says where it is. As long as that file exists it decides.
//
// # Connections
//
// The owner role connects through a Unix socket and is recognised by its operating system user (peer), so the URL holds
// no secret. Where no socket path is short enough for the kernel (107 bytes), the server listens on a free loopback
// port and the URL carries the password. Other roles give a password (SCRAM) either way.
//
// # When somebody dies
//
// The server leads its own session, so that Ctrl-C in a terminal does not reach it before its parent has drained. A
// leash, a shell that waits for the end of a pipe, stops it when the parent was killed. If the leash was killed as well, the
// next start finds the live server and stops it, or finds its stale postmaster.pid and removes it; recovery from the
// write-ahead log is PostgreSQL's own. A server that dies under a living parent is started again, under the same URL.
package local
