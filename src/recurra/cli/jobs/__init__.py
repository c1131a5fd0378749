"""What the commands do with each kind of file: reading it, a model for it, an honest evaluation, the page."""

from .job import Job, Roles, job_of_file, job_of_run, remembered

__all__ = ["Job", "Roles", "job_of_file", "job_of_run", "remembered"]
