"""What runs inside a container: its first process, programs and their channel, its seccomp profile. Standard library only."""
