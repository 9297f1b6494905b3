"""The same work on Apache Beam, for those who outgrow a machine; extra `beam`.

`prepare.py` prepares events, `recommend_all.py` answers every user; both call what the
engines in process call, and so write the same records. `files.py` reads and writes
where Beam's file systems do. The command line is the way in: nothing here is imported
unless `--runner` asks for it.
"""
