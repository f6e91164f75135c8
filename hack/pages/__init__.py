"""What pages of docs/ have from the code: the planner's states, the scheduler's events, the list of modules.

`python -m hack.pages` writes all of it anew, each between two marks in its page. A test holds the pages to it.
"""
